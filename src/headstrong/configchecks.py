"""Combinations of configuration keys that cannot be, each as one line about one key."""

from __future__ import annotations

from collections.abc import Iterator

from headstrong import layouts
from headstrong.config import TASKS_OF_SOURCE, Config, check_letters
from headstrong.layouts import BRANCHED

Problem = tuple[tuple[str, ...], str]


def impossible(config: Config) -> list[Problem]:
    """Combinations that cannot be, as (key path, message)."""
    found = [
        *_letters_without_labels(config),
        *_restarts_without_draws(config),
        *_oversized_sets(config),
        *_attacked_sections(config),
    ]
    if not found:  # layouts are counted by the number of tasks, which must be possible first
        found = [*_layouts(config)]
    return found or _analysis_of_nothing(config)


def _letters_without_labels(config: Config) -> Iterator[Problem]:
    available = TASKS_OF_SOURCE[config.data.source]
    named: list[Problem] = [(("tasks",), config.tasks)]
    named += [(("chains",), chain) for chain in config.chains]
    named += [(("plan", name, "tasks"), section.tasks or config.tasks) for name, section in config.sections.items()]
    for main, row in config.lambdas.items():
        named += [(("lambdas", main), main)] if main != "default" else []
        named += [(("lambdas", main, auxiliary), auxiliary) for auxiliary in row]
    for path, letters in named:
        try:
            check_letters(letters, path[-1])
        except ValueError as error:
            yield path, str(error)
            continue
        missing = [letter for letter in letters if letter not in available]
        if missing:
            yield path, f"{config.data.source} has no labels for {missing[0]!r}; it has {' '.join(available)}"


def _oversized_sets(config: Config) -> Iterator[Problem]:
    for name, section in config.sections.items():
        letters = section.tasks or config.tasks
        if max(section.sizes) > len(letters):
            message = f"{max(section.sizes)} tasks of {letters!r}: there are {len(letters)}"
            yield ("plan", name, "sizes"), message


def _restarts_without_draws(config: Config) -> Iterator[Problem]:
    start = config.protocol.resolved()["start"]
    for name, attack in config.attack_families.items():
        drawn = attack.stepper in ("pgd", "apgd") and (attack.start or start) == "uniform"
        if attack.restarts > 1 and not drawn:
            yield (
                ("attacks", name, "restarts"),
                f"{attack.restarts}: only pgd and apgd from a uniform start can restart",
            )


def _attacked_sections(config: Config) -> Iterator[Problem]:
    for name, attack in config.attack_families.items():
        unknown = [section for section in attack.sections or [] if section not in config.plan]
        if unknown:
            yield ("attacks", name, "sections"), f"{unknown[0]!r} is no section of plan: {', '.join(config.plan)}"


def _layouts(config: Config) -> Iterator[Problem]:
    for name, section in config.sections.items():
        if section.layouts is None:
            continue
        plain = [encoder for encoder in section.encoders if encoder not in BRANCHED]
        if plain:
            message = f"{plain[0]} has one encoder for all tasks; layouts are for {' and '.join(BRANCHED)}"
            yield ("plan", name, "layouts"), message
            continue
        for size in section.sizes:
            number = layouts.count(size)
            if max(section.layouts) >= number:
                message = f"{max(section.layouts)}: {size} tasks have {number} layouts, 0 to {number - 1}"
                yield ("plan", name, "layouts"), message


def _analysis_of_nothing(config: Config) -> list[Problem]:
    analysis, families = config.analysis, config.attack_families
    family = families.get(analysis.family)
    if family is None:
        return [(("analysis", "family"), f"{analysis.family!r} is not among attacks: {', '.join(families) or 'none'}")]
    found: list[Problem] = []
    for key in ("norm", "epsilon", "steps"):
        wanted, configured = getattr(analysis, key), getattr(family, key)
        if wanted not in configured:
            message = f"{wanted} is not among attacks.{analysis.family}.{key}: {', '.join(map(str, configured))}"
            found.append((("analysis", key), message))
    return found
