"""Networks without some of their heads: what someone holds who does not see every task.

The tensors of the other heads are not read from the file, so nothing of them is in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.models.classifier import FORMAT as CLASSIFIER_FORMAT
from headstrong.models.classifier import Classifier, build_classifier, to_device
from headstrong.models.multitask import MultiTaskModel, build_model, use_channels_last
from headstrong.models.store import FORMAT as MODEL_FORMAT
from headstrong.models.store import read_tensors

Network = Classifier | MultiTaskModel
_REMEDY = "delete it and train it again"


def load_partial(
    path: Path, outputs: Sequence[str], *, heads: bool = True, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Network, dict[str, Any]]:
    """The network of a file with the heads of these outputs only, in evaluation mode, and the file's description.

    outputs: labels of a classifier, or letters of a dense model, in the order in which the network gives them. heads:
    False leaves their weights in the file too; they start afresh from `seed`. The description loses what it says of
    other outputs' classes.

    Raises MissingDataError where there is no file, BrokenFileError for anything but a network of ours, ConfigError for
    outputs that it has not, and for dense models whose tasks do not all see the same features.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; train this network first")
    description = read_tensors(path, lambda name: False)[1]
    makers: dict[str, Callable[..., Network]] = {CLASSIFIER_FORMAT: _classifier, MODEL_FORMAT: _dense}
    if description.get("format") not in makers:
        raise BrokenFileError(f"{path}: neither a classifier nor a model of headstrong; {_REMEDY}")
    known = description.get("labels") or description.get("tasks") or ()
    absent = [name for name in outputs if name not in list(known)]
    if absent or not outputs:
        has = ", ".join(known)
        raise ConfigError(f"{path}: has no output {', '.join(absent) or 'to give'}; it has {has}")
    # Before it is built: with fewer tasks, such a network has other parts than its file.
    if description.get("layout") is not None or description.get("encoder") == "mtan":
        raise ConfigError(
            f"{path}: the tasks of {description['encoder']} do not all see the same features; use another"
        )
    try:
        network = makers[description["format"]](path, description, list(outputs), heads, seed)
    except (ConfigError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenFileError(f"{path}: its tensors are not those of what it names ({reason}); {_REMEDY}") from error
    placed = to_device(network, device) if isinstance(network, Classifier) else use_channels_last(network.to(device))
    return placed.eval(), _reduced(description, outputs)


def _classifier(path: Path, description: dict[str, Any], labels: list[str], heads: bool, seed: int) -> Network:
    known = list(description["labels"])
    parts = {key: description[key] for key in ("stem", "feature", "head")}
    sizes = {label: len(description["classes"][label]) for label in labels}
    network = build_classifier(description["backbone"], sizes, description["width"], seed, **parts)
    # A head's tensors are named by its place, which others' absence changes.
    places = {f"heads.{known.index(label)}.": f"heads.{labels.index(label)}." for label in labels if heads}
    _fill(network, path, places, "heads.")
    return network


def _dense(path: Path, description: dict[str, Any], letters: list[str], heads: bool, seed: int) -> Network:
    classes = description["classes"] if "s" in letters else 1  # of no use without s, and not for everyone to know
    shape = {key: description[key] for key in ("encoder", "width")}
    network = build_model(tasks="".join(letters), classes=classes, seed=seed, layout=description.get("layout"), **shape)
    own = [name for letter in letters if heads for name in (f"decoders.{letter}.", f"offset_{letter}")]
    _fill(network, path, {name: name for name in own}, "decoders.", "offset_")
    return network


def _fill(network: nn.Module, path: Path, places: dict[str, str], *headed: str) -> None:
    """Load the file's tensors: all that are of no head, and of heads those whose names begin as `places` has it."""

    def wanted(name: str) -> bool:
        return not name.startswith(headed) or name.startswith(tuple(places))

    def renamed(name: str) -> str:
        old = next((old for old in places if name.startswith(old)), "")
        return places[old] + name.removeprefix(old) if old else name

    tensors = {renamed(name): tensor for name, tensor in read_tensors(path, wanted)[0].items()}
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    lost = [name for name in missing if not name.startswith(headed) or places]
    if lost or unexpected:
        raise RuntimeError(f"missing {lost[:1]}, unexpected {list(unexpected)[:1]}")


def _reduced(description: dict[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
    """The description without other outputs' classes and their frequencies."""
    if "labels" not in description:
        hidden = {"classes", "class_weights"} if "s" not in outputs else set()
        return {key: value for key, value in description.items() if key not in hidden}
    classes = {label: description["classes"][label] for label in outputs}
    return {**description, "labels": list(outputs), "classes": classes}


def head_state(network: Network) -> dict[str, Tensor]:
    """The tensors of a network's heads, by their names in its state; of dense models also the constants they add."""
    headed = ("heads.", "decoders.", "offset_")
    return {name: tensor for name, tensor in network.state_dict().items() if name.startswith(headed)}


def heads_of(network: Network) -> nn.Module:
    """The module that holds the heads."""
    return network.heads if isinstance(network, Classifier) else network.decoders


def backbone_parts(network: Network) -> list[nn.Module]:
    """The parts of a network before its heads, from the image on; together they are all of it.

    A part is a residual block, or whatever else is no mere sequence or list of parts: a convolution, a batch norm, a
    dropout.
    """
    bodies = [network.backbone, network.embedding] if isinstance(network, Classifier) else [network.encoder]
    return [part for body in bodies for child in body.children() for part in _parts(child)]


def last_blocks(parts: list[nn.Module], count: int | None) -> list[nn.Module]:
    """Of these parts the last `count` that have parameters, and those without that follow; None: all.

    Raises ConfigError where there are not so many.
    """
    if count is None:
        return parts
    places = [place for place, part in enumerate(parts) if any(True for _ in part.parameters())]
    if count > len(places):
        raise ConfigError(f"layers {count}; the backbone has {len(places)} blocks")
    return parts[places[-count] :]


def _parts(part: nn.Module) -> list[nn.Module]:
    if isinstance(part, nn.Sequential | nn.ModuleList):
        return [block for child in part.children() for block in _parts(child)]
    return [part]
