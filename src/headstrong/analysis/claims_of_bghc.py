"""The claims of the four other papers: DGBA (B), MTA (G), attacks on hidden tasks (H) and CAMRI (C)."""

from __future__ import annotations

from functools import partial

from headstrong.analysis import claims_classes as classes
from headstrong.analysis import claims_generated as found
from headstrong.analysis.claims_rules import Claim

_BALANCED = {"balanced": ("adversarial", "balancer", "task", "relative_performance", "standard_error",
                          "gain_standard_error")}  # fmt: skip
_GENERATED = {"generated": ("victim", "trained_on", "method", "mode", "goal", "metric", "value", "standard_error")}
_GAIN = {"generated": ("method", "goal", "metric", "value", "gain", "gain_standard_error")}
_HIDDEN = {
    "hidden": ("hidden", "objective", "access", "stealth", "epsilon", "role", "damage", "damage_error"),
    "forgetting": ("family", "kind", "hidden", "access", "epoch", "role", "value", "damage", "n"),
}
_IMPORTANCE = {
    "importance": ("loss", "important", "trial", "split", "recall", "accuracy"),
    "importance_settings": ("loss", "split", "recall", "accuracy", "keeps_accuracy"),
}
_ANGLES = {"importance": ("loss", "trial", "angle_variance", "angle_variance_others"),
           "importance_settings": ("loss", "split", "keeps_accuracy")}  # fmt: skip
_COST = {"generator_cost": ("mode", "method", "parameters", "median_ms", "low_ms", "high_ms", "rounds")}
_DGBA = "abstract of arXiv 2305.12066; no table could be read"
_NOT_RANKED = "not claimed: the abstract names both as the baselines of DGBA and does not rank them"
_HIDDEN_TASKS = "abstract of arXiv 2405.15244; no table could be read, and the numbers of the rule are ours"


def _balance(number: int, own: str, other: str, *, adversarial: bool, fewest: int) -> Claim:
    names = {"dgba": "DGBA", "total": "TOTAL", "single": "the strongest SINGLE"}
    trained = "adversarially trained models" if adversarial else "models trained on clean images"
    return Claim(
        id=f"B{number}",
        statement=f"{names[own]} harms all tasks together more than {names[other]} does, on {trained}.",
        published=_NOT_RANKED if (own, other) == ("total", "single") else _DGBA,
        measure=f"average relative performance under {names[other]} minus that under {names[own]}, same threat",
        columns=_BALANCED,
        evidence=partial(found.stronger_balancer, own=own, other=other, adversarial=adversarial),
        unit="points", side="above", threshold=0.0, fewest=fewest, of="models",
    )  # fmt: skip


_B = (
    _balance(1, "dgba", "total", adversarial=False, fewest=3),
    _balance(2, "dgba", "single", adversarial=False, fewest=3),
    _balance(3, "total", "single", adversarial=False, fewest=3),
    _balance(4, "dgba", "total", adversarial=True, fewest=2),
    _balance(5, "dgba", "single", adversarial=True, fewest=2),
    Claim(
        id="B6",
        statement="The more levels two tasks share, the more an attack on one costs the other.",
        published=_DGBA,
        measure="relative performance lost by a task that is not attacked, all levels shared against none: slope",
        columns={"transfer": ("layout", "adversarial", "shared_levels", "relative_performance", "standard_error")},
        evidence=found.sharing_and_transfer,
        unit="points", side="above", threshold=0.0, fewest=4, of="branched models",
    ),
)  # fmt: skip

_G = (
    Claim(
        id="G1",
        statement="Against classifiers, perturbations of MTA are at least as strong as GAP's, within two points.",
        published="Tables 1 to 4: mean gain -0.0 (radius 10/255) and +7.2 (5/255) points of fooling ratio universal, "
        "+0.6 and +2.1 per instance; target accuracy +1.6, +0.7, +2.6, +0.6. The paper says better; here: no worse by "
        "more than that",
        measure="fooling ratio, or target accuracy of targeted ones, of MTA minus GAP's on the same images",
        columns=_GAIN,
        evidence=partial(found.mta_against_gap, classes=True),
        unit="points", side="above", threshold=-2.0, fewest=6, most=100.0, of="perturbations of a task",
    ),
    Claim(
        id="G2",
        statement="Against a dense model, perturbations of MTA are at least as strong as GAP's, within two percent.",
        published="Table 5: stronger in 7 of 9 measures universal, in 7 of 9 per instance. The paper says "
        "better; here: no worse by more than that",
        measure="how much more MTA harms than GAP, relative to GAP's number, mean over measures",
        columns=_GAIN,
        evidence=partial(found.mta_against_gap, classes=False),
        unit="%", side="above", threshold=-2.0, fewest=3, of="perturbations of a task",
    ),
    Claim(
        id="G3",
        statement="One generator with a shared encoder has fewer parameters than one for each task.",
        published="Table 7: 0.62 against 1.64 (universal), 1.33 against 3.77 (per instance); both ten times too small",
        measure="parameters of MTA relative to GAP's for the same tasks; interval: least to largest",
        columns=_COST,
        evidence=partial(found.cost_ratio, what="parameters"),
        unit="%", side="below", threshold=0.0, fewest=1, of="pairs of generators",
    ),
    Claim(
        id="G4",
        statement="One generator with a shared encoder makes the perturbations of all tasks in less time.",
        published="Table 7: 137 against 384 ms (universal), 126 against 342 ms (per instance)",
        measure="time of MTA relative to GAP's for the same perturbations; interval: from quartiles over rounds",
        columns=_COST,
        evidence=partial(found.cost_ratio, what="time"),
        unit="%", side="below", threshold=0.0, fewest=20, of="rounds",
    ),
    Claim(
        id="G5",
        statement="Perturbations of MTA transfer: they harm a network never trained against more than noise does.",
        published="Table 6, MTAN: mIoU 21.00 to 9.89 (universal) and 8.84 (per instance); no noise printed",
        measure="loss of MTA's victims relative to their clean numbers minus that by noise, mean over measures",
        columns=_GENERATED,
        evidence=found.transfer_over_noise,
        unit="%", side="above", threshold=0.0, fewest=3, of="perturbations of a task",
    ),
    Claim(
        id="G6",
        statement="Against classifiers, untargeted universal perturbations are stronger than per-instance ones.",
        published="section 4.1.2, Tables 1 and 3: mean fooling ratio of MTA at radius 5/255 87.94 (88.80 is "
        "printed) against 81.59 %",
        measure="fooling ratio of per-instance minus universal perturbations, same method and radius",
        columns=_GENERATED,
        evidence=partial(found.instance_against_universal, classes=True),
        unit="points", side="below", threshold=0.0, fewest=6, most=100.0, of="perturbations of a task",
    ),
    Claim(
        id="G7",
        statement="Against a dense model, per-instance perturbations are stronger than universal ones.",
        published="section 4.2, Table 5: mIoU of MTA 1.29 against 5.09, PixAcc 6.27 against 19.23 %",
        measure="how much more per-instance ones harm, relative to the universal number, mean over measures",
        columns=_GENERATED,
        evidence=partial(found.instance_against_universal, classes=False),
        unit="%", side="above", threshold=0.0, fewest=3, of="perturbations of a task",
    ),
)  # fmt: skip


def _hidden(number: int, objective: str, name: str) -> tuple[Claim, ...]:
    attack = f"{name} by an attacker with the visible heads"
    shared = partial(
        Claim, published=_HIDDEN_TASKS, columns=_HIDDEN, unit="points", side="above", fewest=3, of="hidden tasks"
    )
    return (
        shared(
            id=f"H{number}",
            statement=f"{name} breaks a task that the attacker cannot see: it loses more than ten points.",
            measure=f"damage of the hidden task under {attack}",
            evidence=partial(classes.hidden_falls, objective=objective),
            threshold=10.0,
            most=100.0,
        ),
        shared(
            id=f"H{number + 1}",
            statement=f"{name} spares the visible tasks: they lose less than a third of what the hidden one loses.",
            measure=f"damage of the hidden task minus three times the mean damage of the visible, under {attack}",
            evidence=partial(classes.visible_stay, objective=objective),
            threshold=0.0,
            most=400.0,
        ),
        shared(
            id=f"H{number + 2}",
            statement=f"{name} harms the hidden task more than noise of the same size.",
            measure=f"damage of the hidden task under {attack} minus that under noise",
            evidence=partial(classes.stronger_than_noise, objective=objective),
            threshold=0.0,
            most=100.0,
        ),
    )  # fmt: skip


_favouring = partial(Claim, fewest=15, of="trials")
_C = (
    _favouring(
        id="C1",
        statement="CAMRI raises the recall of the important class over the cross entropy.",
        published="poster Table 1: in 9 of 9 settings, by 0.6 to 9.3 points",
        measure="recall of the important classes under CAMRI minus the cross entropy's, test pictures",
        columns=_IMPORTANCE,
        evidence=partial(classes.gain_over_base, column="recall"),
        unit="points", side="above", threshold=0.0, most=100.0,
    ),
    _favouring(
        id="C2",
        statement="CAMRI keeps the accuracy over all classes, within one point.",
        published="poster Table 1: accuracy at least the cross entropy's in 9 of 9 settings",
        measure="accuracy under CAMRI minus the cross entropy's, test pictures",
        columns=_IMPORTANCE,
        evidence=partial(classes.gain_over_base, column="accuracy"),
        unit="points", side="above", threshold=-1.0, most=100.0,
    ),
    _favouring(
        id="C3",
        statement="The margin makes the angles of the important class vary less relative to those of the others.",
        published="abstract and Figure 3 of the poster; no variances printed",
        measure="variance of angles, important over other classes, CAMRI relative to the loss without a margin",
        columns=_ANGLES,
        evidence=classes.tighter_angles,
        unit="%", side="below", threshold=0.0,
    ),
    _favouring(
        id="C4",
        statement="A margin for the important class alone raises its recall more than one for all classes (ArcFace).",
        published="poster Table 1: in 9 of 9 settings",
        measure="recall of the important classes under CAMRI minus ArcFace's, test pictures",
        columns=_IMPORTANCE,
        evidence=partial(classes.gain_over, other="arcface"),
        unit="points", side="above", threshold=0.0, most=100.0,
    ),
)  # fmt: skip

CLAIMS = (*_B, *_G, *_hidden(1, "cf", "CF"), *_hidden(4, "cf_delta", "CF-delta"), *_C)
