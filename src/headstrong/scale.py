"""The protocol, data and scale of a study in a few words: what has to stand beside every verdict on a claim."""

from __future__ import annotations

from collections.abc import Sequence

from headstrong.config import Config
from headstrong.generatorconfig import GeneratorsConfig
from headstrong.hiddenconfig import HiddenConfig

EMBEDDED = frozenset(["rooms", "objects"])  # sources that are made here, not photographs


def in_words(config: Config) -> dict[str, str]:
    """By the letter of a system (R, B, G, H, C), switches, data, width and epochs of the study: "corrected; rooms
    (embedded), 64x64, width 0.25, 6 epochs". Data are those the networks learn from; a letter without is left out."""
    dense = [f"{_data(config.data.source, config.data.size)}, {_training(config.model.width, config.training.epochs)}"]
    generators, hidden = config.generator_families.values(), config.hidden_families.values()
    of_system = {
        "R": dense if config.sections else [],
        "B": dense if config.sections else [],
        "G": [words for family in generators for words in _victim(config, family, dense)],
        "H": [words for family in hidden for words in _victim(config, family, dense)],
        "C": [
            f"{_pictures(config, family.pictures)}, {_training(family.width, family.training.epochs)}"
            for family in config.importance_families.values()
        ],
    }
    protocol = _protocol(config)
    return {
        system: "; ".join([protocol, *dict.fromkeys(parts)]) for system, parts in of_system.items() if len(parts) > 0
    }


def _protocol(config: Config) -> str:
    """The preset and the switches that do not follow it."""
    given = config.protocol.model_dump()
    own = [f"{key}={value}" for key, value in given.items() if key != "preset" and value is not None]
    return ", ".join([str(given["preset"]), *own])


def _victim(config: Config, family: GeneratorsConfig | HiddenConfig, dense: Sequence[str]) -> Sequence[str]:
    if family.classifiers is None:
        return dense
    chosen = config.classifier_families[family.classifiers]
    return [f"{_pictures(config, chosen.pictures)}, {_training(chosen.width, chosen.training.epochs)}"]


def _pictures(config: Config, name: str) -> str:
    chosen = config.picture_sets[name]
    return _data(chosen.dataset, chosen.size)


def _data(source: str, size: Sequence[int]) -> str:
    return f"{source}{' (embedded)' if source in EMBEDDED else ''}, {size[0]}x{size[1]}"


def _training(width: float, epochs: int) -> str:
    return f"width {width:g}, {epochs} epochs"
