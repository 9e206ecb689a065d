"""Jobs of small generators, for the tests of what is done with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headstrong import radius
from headstrong.jobs import GeneratorJob

JOB = GeneratorJob(
    id="family-gap-universal-untargeted-linf-10",
    family="family",
    kind="classes",
    method="gap",
    mode="universal",
    goal="untargeted",
    norm="linf",
    epsilon=10 / 255,
    tasks=("studio", "room"),
    label="shape",
    targets=(),
    filters=4,
    blocks=1,
    normalization="batch",
    activation="relu",
    dropout=0.0,
    scaling="whole",
    log_mean="outside",
    untargeted_loss="truth",
    weights="uniform",
    epochs=1,
    batch_size=2,
    learning_rate=2e-3,
    milestones=(),
    decay=0.5,
    precision="float32",
    samples=None,
    shared_input=False,
    seed=7,
)


def make_generator_job(**changes: Any) -> GeneratorJob:
    """JOB with changes, and the id that the plan gives it."""
    job = replace(JOB, **changes)
    name = f"{job.family}-{job.method}-{job.mode}-{job.goal}-{job.norm}-{radius.in_name(job.epsilon)}"
    return replace(job, id=changes.get("id", name))
