"""What is made for losses that favour important classes: the trials, and the jobs that train and evaluate them.

Everything here is plain Python, so that the Snakefile can read it at every job.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstrong.errors import ConfigError
from headstrong.importanceconfig import BY_RECALL, FAVOURING
from headstrong.jobs import ClassifierJob, ClassLossJob, ImportanceJob
from headstrong.pictureconfig import classifier_job
from headstrong.seeds import derive_seed

if TYPE_CHECKING:
    from headstrong.config import Config
    from headstrong.importanceconfig import ImportanceConfig, LossConfig


@dataclass(frozen=True)
class Trial:
    """One training: its family, its loss (None: cross entropy), the number of the trial."""

    id: str
    family: str
    number: int
    loss: ClassLossJob | None

    @property
    def favours(self) -> bool:
        """Whether the classes that its loss favours must be known first."""
        return self.loss is not None and self.loss.important is not None


class ImportancePlan:
    """Every trial of a study's families of important classes, in a fixed order.

    Raises ConfigError for two ids that differ in no more than capitals.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.trials = tuple(trial for name in config.importance_families for trial in self._trials(name))
        self._trials_by_id = {trial.id: trial for trial in self.trials}
        ids = [trial.id.casefold() for trial in self.trials]
        twice = next((one for one in ids if ids.count(one) > 1), None) if len(set(ids)) < len(ids) else None
        if twice is not None:
            raise ConfigError(f"config: importance: two classifiers would both be {twice!r}; rename a family or a key")

    def __contains__(self, classifier_id: str) -> bool:
        return classifier_id in self._trials_by_id

    def __getitem__(self, classifier_id: str) -> Trial:
        return self._trials_by_id[classifier_id]

    def of_family(self, family: str) -> tuple[Trial, ...]:
        """The trials of a family."""
        return tuple(trial for trial in self.trials if trial.family == family)

    def baselines(self, family: str) -> tuple[Trial, ...]:
        """The trials of the cross entropy, by whose recall classes are ranked; none where no class is ranked."""
        if BY_RECALL not in self.config.importance_families[family].important.values():
            return ()
        return tuple(trial for trial in self.of_family(family) if trial.loss is None)

    def pictures(self, family: str) -> tuple[str, str]:
        """The set of pictures of a family, and the domain of it."""
        settings = self.config.importance_families[family]
        return settings.pictures, settings.domain or self.config.picture_sets[settings.pictures].domains[0]

    def ranking(self, family: str) -> str:
        """The split by which a family's classes are ranked."""
        return str(self._protocol(family)["ranking"])

    def splits(self, family: str) -> tuple[str, ...]:
        """The splits on which a family is evaluated."""
        validated = self.config.picture_sets[self.pictures(family)[0]].validated
        return ("validation", "test") if validated else ("test",)

    def classifier_job(self, classifier_id: str) -> ClassifierJob:
        """What the training job of this trial needs to know."""
        trial = self[classifier_id]
        family = self.config.importance_families[trial.family]
        # Not of the loss: trials of one number start from the same weights and see the same batches.
        seed = derive_seed(self.config.study.seed, "importance", trial.family, trial.number)
        return classifier_job(family, trial.id, (self._label(trial.family),), seed, trial.loss)

    def family_job(self, family: str) -> ImportanceJob:
        """What choosing the classes, and evaluating the family, need to know."""
        settings = self.config.importance_families[family]
        return ImportanceJob(
            family=family,
            label=self._label(family),
            important=tuple((key, _names(chosen)) for key, chosen in settings.important.items()),
            ranking=self.ranking(family),
            trials=tuple(trial.id for trial in self.of_family(family)),
            tolerance=settings.tolerance,
            batch_size=self.config.evaluation.batch_size,
        )

    def choice_settings(self, family: str) -> dict[str, Any]:
        """What the choice of a family's classes depends on, beside the ranking models."""
        job = self.family_job(family)
        return {"family": family, "label": job.label, "important": dict(job.important), "ranking": job.ranking}

    def _label(self, family: str) -> str:
        settings = self.config.importance_families[family]
        return settings.label or self.config.picture_sets[settings.pictures].labels[0]

    def _protocol(self, family: str) -> dict[str, Any]:
        return self.config.switches(None, self.config.importance_families[family].protocol)

    def _trials(self, family: str) -> Iterator[Trial]:
        settings = self.config.importance_families[family]
        angles = self._protocol(family)["large_angles"]
        for name, grid in settings.chosen_losses.items():
            for loss in _losses(name, grid, settings, angles):
                stem = "-".join([family, name, *_words(loss)])
                for number in range(settings.trials):
                    yield Trial(f"{stem}-{number}", family, number, loss)


def _names(chosen: Sequence[str] | None) -> tuple[str, ...]:
    """The names of important classes; none where recall decides."""
    return () if isinstance(chosen, str) or chosen is None else tuple(chosen)


def _losses(name: str, grid: LossConfig, settings: ImportanceConfig, angles: str) -> Iterator[ClassLossJob | None]:
    """Every setting of a loss; None for the cross entropy, which has none."""
    if name == "ce":
        yield None
        return
    keys = list(settings.important) if name in FAVOURING else (None,)
    for key, margin, scale, weight in itertools.product(
        keys, grid.margin or (None,), grid.scale or (None,), grid.weight or (None,)
    ):
        # Losses without a margin have no large angles: a switch of these does not train them again.
        handling = {"large_angles": angles} if margin is not None else {}
        yield ClassLossJob(name, margin, scale, weight, key, **handling)


def _words(loss: ClassLossJob | None) -> Iterator[str]:
    """What tells a setting from the others of its loss, e.g. worst1, m4, s16."""
    if loss is None:
        return
    if loss.important is not None:
        yield loss.important
    for letter, value in (("m", loss.margin), ("s", loss.scale), ("w", loss.weight)):
        if value is not None:
            yield f"{letter}{value:g}"
