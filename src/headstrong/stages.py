"""Which code makes which result: every rule's modules, from which the digest in its run records comes.

The rules of the workflow take their own digests of the same modules, as params; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstrong.data.build import code_modules, picture_modules
from headstrong.provenance import code_digest, training_code

MODULES: dict[str, tuple[str, ...]] = {
    "write_config": ("headstrong.config",),
    "write_plan": ("headstrong.study",),
    "train_classifier": ("headstrong.classifier_training",),
    "train_generator": ("headstrong.generator_training",),
    "forget_task": ("headstrong.forgetting",),
    "evaluate_model": ("headstrong.evaluation",),
    "evaluate_generators": ("headstrong.generated",),
    "evaluate_hidden": ("headstrong.hidden_evaluation",),
    "evaluate_importance": ("headstrong.importance",),
    "choose_classes": ("headstrong.class_choice",),
    "time_generators": ("headstrong.generator_timing",),
    "picture_attacks": ("headstrong.pictured",),
    "measure_baselines": ("headstrong.analysis.baselines",),
    "collect_vulnerability": ("headstrong.analysis.vulnerability",),
    "collect_attacks": tuple(
        f"headstrong.analysis.{name}" for name in ("balanced", "transfer", "theory", "marginal", "curves", "checks")
    ),
    "collect_generated": ("headstrong.analysis.generated", "headstrong.analysis.mta_tables"),
    "collect_importance": tuple(
        f"headstrong.analysis.{name}" for name in ("importance", "importance_settings", "camri_table")
    ),
    "collect_hidden": ("headstrong.analysis.hidden", "headstrong.analysis.hidden_summary"),
    "make_tables": ("headstrong.analysis.build",),
    "judge_claims": ("headstrong.analysis.claims",),
    "draw_figures": ("headstrong.figures.gallery",),
    "make_report": ("headstrong.report.page", "headstrong.analysis.audit"),
    "apply_perturbation": ("headstrong.generated_files",),
}


def stage_code(rule: str, job: Mapping[str, Any] | None = None) -> str | None:
    """The digest of a rule's code as it is in this checkout; None for a rule that this checkout does not know.

    job: the settings or job of the record, which decide it for data (the source) and training (with attacks or not).
    Raises KeyError for data without a source.
    """
    job = job or {}
    if rule == "build_data":
        return code_digest(*code_modules(job["source"]))
    if rule == "build_pictures":
        return code_digest(*picture_modules(job["source"]))
    if rule == "train_model":
        return training_code(job.get("adversarial") is not None)
    return code_digest(*MODULES[rule]) if rule in MODULES else None
