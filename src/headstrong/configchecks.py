"""Combinations of configuration keys that cannot be, each as one line about one key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from headstrong import layouts, radius
from headstrong.attackconfig import AttackConfig
from headstrong.config import TASKS_OF_SOURCE, Config, check_letters
from headstrong.errors import ConfigError
from headstrong.generatorconfig import GeneratorsConfig
from headstrong.hiddenconfig import HiddenAttacksConfig
from headstrong.importanceconfig import BY_RECALL
from headstrong.layouts import BRANCHED
from headstrong.pictureconfig import NetworkConfig, PicturesConfig
from headstrong.protocol import SwitchesConfig
from headstrong.study import models_of, plan_settings

RESNETS = ("resnet18", "resnet34", "resnet50")  # classifiers with a stem of two kinds
SCALABLE = (*RESNETS, "camri")  # classifiers of which any width is built
# A key path and what is wrong there; also the key path of what it names, where an overlay can have removed that.
Problem = tuple[tuple[str, ...], str] | tuple[tuple[str, ...], str, tuple[str, ...]]


def impossible(config: Config) -> list[Problem]:
    """Combinations that cannot be, as (key path, message)."""
    found = [
        *_letters_without_labels(config),
        *_taskonomy(config),
        *_restarts_without_draws(config),
        *_oversized_sets(config),
        *_attacked_sections(config),
        *_classifiers(config),
        *_generators(config),
        *_importance(config),
        *_hidden(config),
        *_l2_radii(config),
    ]
    if not found:  # layouts are counted by the number of tasks, which must be possible first
        found = [*_layouts(config)]
    return found or (_analysis_of_nothing(config) if config.sections else [])


def not_planned(config: Config) -> Iterator[Problem]:
    """Models shown with pictures that the plan does not have, as (key path, message); those of a section that is null
    were left out with it."""
    try:
        planned = [model.id for model in models_of(plan_settings(config))]
    except ConfigError:  # there is no plan: making it says why
        return
    for name in config.report.models if planned else ():
        section = max((key for key in config.plan or {} if name.startswith(f"{key}-")), key=len, default=None)
        if name not in planned and (section is None or section in config.sections):
            like = ", ".join(get_close_matches(name, planned) or planned[:3])
            yield ("report", "models"), f"{name!r} is no model of plan; name some of it, such as {like}, or none"


def _l2_radii(config: Config) -> Iterator[Problem]:
    """L2 radii in which every image can become grey: what was meant is a number of 255ths."""
    dense = config.data.size
    chosen: list[tuple[tuple[str, ...], Sequence[float], Sequence[str], Sequence[int]]] = []
    for name, attack in config.attack_families.items() if config.sections else ():
        chosen.append((("attacks", name), attack.epsilon, attack.norm, dense))
    for name, section in config.sections.items():
        if section.adversarial is not None:
            own = section.adversarial
            chosen.append((("plan", name, "adversarial"), [own.epsilon], [own.norm], dense))
    for name, family in config.generator_families.items():
        chosen.append((("generators", name), family.epsilon, family.norm, _size(config, family.classifiers)))
    for name, turns in config.hidden_families.items():
        attacks = turns.attacks
        chosen.append((("hidden", name, "attacks"), attacks.epsilon, attacks.norm, _size(config, turns.classifiers)))
    for path, radii, norms, size in chosen:
        wrong = radius.too_large("epsilon", radii, norms, size)
        if wrong:
            yield path, wrong


def _size(config: Config, classifiers: str | None) -> Sequence[int]:
    """(H, W) of the images of a family of these classifiers, None: of a dense model; () where there are no pictures."""
    if classifiers is None:
        return config.data.size
    family = config.classifier_families.get(classifiers)
    pictures = None if family is None else config.picture_sets.get(family.pictures)
    return () if pictures is None else pictures.size


def _letters_without_labels(config: Config) -> Iterator[Problem]:
    available = TASKS_OF_SOURCE[config.data.source]
    named: list[tuple[tuple[str, ...], str]] = [(("tasks",), config.tasks)]
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


def _taskonomy(config: Config) -> Iterator[Problem]:
    if config.data.buildings is not None and config.protocol.resolved()["taskonomy_split"] == "point":
        named = config.data.buildings if isinstance(config.data.buildings, str) else "the list"
        message = f"{named!r} is a split by buildings, but protocol.taskonomy_split is point"
        yield ("data", "buildings"), f"{message}; set that to buildings, or this to null"
    if config.data.source != "taskonomy":
        switches: list[tuple[tuple[str, ...], SwitchesConfig | None]] = [(("protocol",), config.protocol)]
        switches += [(("plan", name, "protocol"), section.protocol) for name, section in config.sections.items()]
        for path, chosen in switches:
            if chosen is not None and chosen.class_weights == "published":
                yield (*path, "class_weights"), "published: there are weights of taskonomy's classes only; choose prior"


def _oversized_sets(config: Config) -> Iterator[Problem]:
    for name, section in config.sections.items():
        letters = section.tasks or config.tasks
        if max(section.sizes) > len(letters):
            message = f"{max(section.sizes)} tasks of {letters!r}: there are {len(letters)}"
            yield ("plan", name, "sizes"), message


def _restarts_without_draws(config: Config) -> Iterator[Problem]:
    chosen: list[tuple[tuple[str, ...], AttackConfig | HiddenAttacksConfig, str, str]] = []
    for name, own in config.attack_families.items():
        starts = {section: config.switches(section, None)["start"] for section in own.sections or config.sections}
        for section in sorted(starts, key=lambda one: starts[one] == "uniform")[:1]:  # one that cannot, if there is any
            where = f" (section {section})" if own.start is None else ""
            chosen.append((("attacks", name), own, starts[section], where))
    for name, family in config.hidden_families.items():
        start = config.switches(family.section, family.protocol)["start"]
        chosen.append((("hidden", name, "attacks"), family.attacks, start, ""))
    for path, attack, start, where in chosen:
        begins = (attack.start or start) if attack.stepper in ("pgd", "apgd") else "clean"
        if attack.restarts > 1 and begins != "uniform":
            yield (*path, "restarts"), f"{attack.restarts}: only pgd and apgd from a uniform start can restart{where}"
        if begins == "clean" and isinstance(attack, HiddenAttacksConfig) and "disruption" in attack.objectives:
            said = "disruption has no slope at the clean image; use pgd or apgd from another start, or leave it out"
            yield (*path, "objectives"), said


def _attacked_sections(config: Config) -> Iterator[Problem]:
    for name, attack in config.attack_families.items():
        unknown = [section for section in attack.sections or [] if section not in (config.plan or {})]
        if unknown and config.plan is not None:  # a study without dense models attacks none
            yield ("attacks", name, "sections"), f"{unknown[0]!r} is no section of plan: {', '.join(config.plan)}"


def _classifiers(config: Config) -> Iterator[Problem]:
    for name, family in config.classifier_families.items():
        path = ("classifiers", name)
        pictures = config.picture_sets.get(family.pictures)
        yield from _network(config, path, family)
        if pictures is None:
            continue
        unknown = [label for label in family.labels if label not in pictures.labels]
        if unknown:
            message = f"{pictures.source} has no label {unknown[0]!r}; it has {', '.join(pictures.labels)}"
            yield (*path, "labels"), message
        if len(set(family.labels)) < len(family.labels):
            yield (*path, "labels"), f"{family.labels}: each at most once"


def _network(config: Config, path: tuple[str, ...], family: NetworkConfig) -> Iterator[Problem]:
    """What no network can be, and pictures that there are not."""
    if family.pictures not in config.picture_sets:
        said = f"{family.pictures!r} is not among pictures: {_names(config.picture_sets)}"
        yield (*path, "pictures"), said, ("pictures", family.pictures)
    if family.stem != "published" and family.backbone not in RESNETS:
        yield (*path, "stem"), f"{family.stem}: of {' and '.join(RESNETS)} only"
    if family.width != 1 and family.backbone not in SCALABLE:
        yield (*path, "width"), f"{family.width:g}: of {' and '.join(SCALABLE)} only; others have width 1"
    if family.pretrained is not None and family.backbone == "camri":
        yield (*path, "pretrained"), "there are no published weights of camri; null"


def _importance(config: Config) -> Iterator[Problem]:
    for name, family in config.importance_families.items():
        path = ("importance", name)
        pictures = config.picture_sets.get(family.pictures)
        yield from _network(config, path, family)
        if pictures is None:
            continue
        yield from _domain(path, family.domain, pictures)
        if family.label is not None and family.label not in pictures.labels:
            yield (*path, "label"), f"{pictures.source} has no label {family.label!r}; it has {_names(pictures.labels)}"
        ranking = config.switches(None, family.protocol)["ranking"]
        ranks = [key for key, names in family.important.items() if names == BY_RECALL]
        if ranks and ranking == "validation" and not pictures.validated:
            yield (
                (*path, "important", ranks[0]),
                f"ranked by validation pictures, which pictures.{family.pictures} has not; give it some, or protocol "
                "ranking: test",
                ("pictures", family.pictures, "validation"),
            )


def _domain(path: tuple[str, ...], chosen: str | None, pictures: PicturesConfig) -> Iterator[Problem]:
    """A domain that the pictures do not have, or none where they have several."""
    if chosen is None and len(pictures.domains) > 1:
        yield (*path, "domain"), f"the pictures have several; name one of {', '.join(pictures.domains)}"
    if chosen is not None and chosen not in pictures.domains:
        yield (*path, "domain"), f"{chosen!r}: the pictures have {', '.join(pictures.domains)}"


def _hidden(config: Config) -> Iterator[Problem]:
    for name, family in config.hidden_families.items():
        path = ("hidden", name)
        if family.section is not None:
            yield from _hidden_section(config, path, family.section)
            continue
        chosen = config.classifier_families.get(family.classifiers or "")
        if chosen is None:
            known = _names(config.classifier_families)
            said = f"{family.classifiers!r} is not among classifiers: {known}"
            yield (*path, "classifiers"), said, ("classifiers", str(family.classifiers))
            continue
        for task, labels in (family.tasks or {}).items():
            absent = [label for label in labels if label not in chosen.labels]
            if absent:
                told = ", ".join(chosen.labels)
                yield (*path, "tasks", task), f"{absent[0]!r} is no label of classifiers.{family.classifiers}: {told}"
        pictures = config.picture_sets.get(chosen.pictures)
        if pictures is None:
            continue
        yield from _domain(path, family.domain, pictures)


def _hidden_section(config: Config, path: tuple[str, ...], name: str) -> Iterator[Problem]:
    section = config.sections.get(name)
    if section is None:
        yield (*path, "section"), f"{name!r} is no section of plan: {_names(config.sections)}", ("plan", name)
    elif any(encoder in (*BRANCHED, "mtan") for encoder in section.encoders):
        yield (*path, "section"), f"the tasks of plan.{name} do not all see the same features; use another encoder"


def _generators(config: Config) -> Iterator[Problem]:
    for name, family in config.generator_families.items():
        path = ("generators", name)
        if family.classifiers is not None:
            yield from _attacked_classifiers(config, path, family)
        for section in [family.section, *family.transfer] if family.section else []:
            if section not in config.sections:
                key = "section" if section == family.section else "transfer"
                yield (*path, key), f"{section!r} is no section of plan: {_names(config.sections)}", ("plan", section)
        for key in ("methods", "modes", "goals", "norm", "transfer"):
            values = getattr(family, key)
            if len(set(values)) < len(values):
                yield (*path, key), f"{values}: each at most once"


def _attacked_classifiers(config: Config, path: tuple[str, ...], family: GeneratorsConfig) -> Iterator[Problem]:
    known = config.classifier_families
    first = family.classifiers or ""
    for chosen in (first, *family.transfer):
        if chosen not in known:
            key = "classifiers" if chosen == family.classifiers else "transfer"
            yield (*path, key), f"{chosen!r} is not among classifiers: {_names(known)}", ("classifiers", chosen)
            return
    own = known[first]
    if any(known[other].pictures != own.pictures for other in family.transfer):
        yield (*path, "transfer"), f"{', '.join(family.transfer)}: must be classifiers of the same pictures"
    if any((family.label or own.labels[0]) not in known[other].labels for other in (first, *family.transfer)):
        yield (*path, "label"), f"{family.label or own.labels[0]!r}: not all victims tell it"
    pictures = config.picture_sets.get(own.pictures)
    if pictures and isinstance(family.target, list) and len(family.target) != len(pictures.domains):
        yield (
            (*path, "target"),
            f"{len(family.target)} classes for {len(pictures.domains)} domains; give one, or one each",
        )


def _names(known: Iterable[str]) -> str:
    return ", ".join(known) or "none"


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
        said = f"{analysis.family!r} is not among attacks: {', '.join(families) or 'none'}"
        return [(("analysis", "family"), said, ("attacks", analysis.family))]
    found: list[Problem] = []
    for key in ("norm", "epsilon", "steps"):
        wanted, configured = getattr(analysis, key), getattr(family, key)
        if wanted not in configured:
            message = f"{wanted} is not among attacks.{analysis.family}.{key}: {', '.join(map(str, configured))}"
            found.append((("analysis", key), message))
    return found
