"""The claims of "Adversarial Robustness in Multi-Task Learning: Promises and Illusions" (Ghamizi et al. 2022)."""

from __future__ import annotations

from functools import partial

from headstrong.analysis import claims_robustness as found
from headstrong.analysis.claims_rules import Claim

_CELLS = {"cells": ("encoder", "main", "size", "quantity", "value", "standard_error")}
_THREATS = {"vulnerability": ("stepper", "norm", "epsilon", "steps", "metric", "mean", "standard_error")}
_TABLE_1 = {"table_1": ("weighting", "block", "main", "auxiliary", "ours", "standard_error")}
_TABLE_2 = {"table_2": ("weighting", "attack", "main", "auxiliary", "ours", "standard_error")}
_SURROGATES = {"surrogates": ("surrogate", "scope", "statistic", "value", "low", "high", "n")}
_MARGINAL = {"marginal": ("attacked", "added", "measured", "standard_error", "bound")}
_SHARE = "share of the cells whose main task is more vulnerable with auxiliary tasks than alone"
_LARGE = ("resnet50", "resnet152")
# Reliable: nine of ten cells less vulnerable. A claim that it is not reliable names the other side.
_UNRELIABLE = 10.0

CLAIMS = (
    Claim(
        id="R1",
        statement="In L-infinity balls, auxiliary tasks do not reliably protect a main task that is attacked alone.",
        published="RQ1; supplement Table 2: 9 of 20 ResNet18 pairs are more vulnerable than their main task alone",
        measure=f"{_SHARE}, the main task attacked by PGD",
        columns=_CELLS,
        evidence=partial(found.more_vulnerable, quantity="single"),
        unit="% of cells", side="above", threshold=_UNRELIABLE, fewest=10, of="cells",
    ),
    Claim(
        id="R2",
        statement="In L-infinity balls, auxiliary tasks do not reliably protect a main task where all are attacked.",
        published="RQ1; supplement Table 2: 4 of 20 ResNet18 pairs are more vulnerable than their main task alone",
        measure=f"{_SHARE}, all tasks attacked by PGD",
        columns=_CELLS,
        evidence=partial(found.more_vulnerable, quantity="multi"),
        unit="% of cells", side="above", threshold=_UNRELIABLE, fewest=10, of="cells",
    ),
    Claim(
        id="R3",
        statement="In L2 balls, auxiliary tasks do make the main task more robust: on average the attack "
        "multiplies its error less.",
        published="RQ1: L2 attacks are said to bear out what Mao et al. (2020) found; supplement "
        "Figure 17, where errors hardly change: the released L2 step moves an image by next to nothing",
        measure="how much more the attack multiplies the error with auxiliary tasks than without, the main task "
        "attacked by PGD",
        columns=_THREATS,
        evidence=found.growth_under_l2,
        unit="%", side="below", threshold=0.0, fewest=10, of="cells",
    ),
    Claim(
        id="R4",
        statement="Against large radii, beyond 4/255, auxiliary tasks give no reliable robustness.",
        published="RQ1, attack budget, radii 4, 8, 16 and 32 of 255; supplement Figure 16 (2, 4, 8 and 16)",
        measure=f"{_SHARE}, the main task attacked by PGD at two or more radii above 4/255",
        columns=_THREATS,
        evidence=found.more_vulnerable_at_radii,
        unit="% of cells", side="above", threshold=_UNRELIABLE, fewest=20, of="cells",
    ),
    Claim(
        id="R5",
        statement="Against attacks of many steps, models of several tasks are not reliably more robust than of one.",
        published="supplement 3.4, number of steps, Figures 14 (50 steps) and 15",
        measure=f"{_SHARE}, the main task attacked by PGD of 50 steps or more",
        columns=_THREATS,
        evidence=found.more_vulnerable_at_steps,
        unit="% of cells", side="above", threshold=_UNRELIABLE, fewest=10, of="cells",
    ),
    Claim(
        id="R6",
        statement="Attacks on all tasks reach their plateau in fewer steps than attacks on one.",
        published="supplement 3.4, number of steps, Figure 14",
        measure="share of the final effect gained in the second half of the steps, one task attacked minus all",
        columns={"curves": ("attack", "steps", "attacked", "task", "step", "relative")},
        evidence=found.later_plateau,
        unit="points", side="above", threshold=0.0, fewest=20, of="pairs of attacks",
    ),
    Claim(
        id="R7",
        statement="With large encoders, most models of several tasks are more vulnerable than those of one.",
        published="RQ1, architecture: 80 % with ResNet50 and ResNet152; supplement Tables 3 and 6: 15 and 16 of 20",
        measure=f"{_SHARE}, with ResNet50 and ResNet152, the main task attacked by PGD",
        columns=_CELLS,
        evidence=partial(found.more_vulnerable, quantity="single", encoders=_LARGE),
        unit="% of cells", side="above", threshold=50.0, fewest=10, of="cells",
    ),
    Claim(
        id="R8",
        statement="For every main task some auxiliary tasks make it less vulnerable to PGD.",
        published="introduction: a careful selection of the tasks is enough; Table 1 (A): not for s, of which all four "
        "pairs are more vulnerable, as the text on RQ3 says",
        measure="share of main tasks, of each encoder, that some set of auxiliary tasks makes less vulnerable to PGD",
        columns=_CELLS,
        evidence=partial(found.less_vulnerable_partner, attack="pgd"),
        unit="% of main tasks", side="at least", threshold=100.0, fewest=3, of="main tasks of an encoder",
    ),
    Claim(
        id="R9",
        statement="For every main task some auxiliary task makes it less vulnerable to Auto-PGD.",
        published="RQ3, text on Table 2; its part A has no such pair for E, its part B none for D and E; under "
        "WGD none for s",
        measure="share of main tasks that some auxiliary task makes less vulnerable to Auto-PGD, uniform pairs",
        columns=_TABLE_2,
        evidence=partial(found.less_vulnerable_partner, attack="apgd"),
        unit="% of main tasks", side="at least", threshold=100.0, fewest=3, of="main tasks",
    ),
    Claim(
        id="R10",
        statement="Attacking one task more often raises the adversarial vulnerability of a model: in more than "
        "half of the cases.",
        published="RQ2, Figure 1; supplement Figure 12; with losses divided by the number of tasks Figure 13 "
        "shows less",
        measure="share of cases in which it does, losses summed; for each, whether its own 95 % interval is above 0",
        columns=_MARGINAL,
        evidence=found.raised_by_one_more,
        unit="% of cases", side="above", threshold=50.0, fewest=20, of="cases",
    ),
    Claim(
        id="R11",
        statement="What one attacked task more adds is bounded by its own gradient and the largest of the others.",
        published="Theorem 4: N + 1 times its own gradient and N times the largest of the others bound the "
        "first order; no measurement beside it",
        measure="share of cases in which the measured marginal vulnerability is within the bound",
        columns=_MARGINAL,
        evidence=found.within_bound,
        unit="% of cases", side="above", threshold=90.0, fewest=40, of="cases",
    ),
    Claim(
        id="R12",
        statement="What one attacked task more adds depends mainly on its own vulnerability and on the most vulnerable "
        "task before it.",
        published="answer to RQ2, after Theorem 4 and Figure 1; no correlation printed",
        measure="rank correlation of the measured marginal vulnerability and the bound of Theorem 4",
        columns=_MARGINAL,
        evidence=found.follows_bound,
        unit="r", side="above", threshold=0.5, fewest=20, of="cases",
    ),
    Claim(
        id="R13",
        statement="Segmentation adds more to the vulnerability of a model than any other task.",
        published="RQ2, Figure 1: s is named as what counts most; its loss is on the largest scale",
        measure="share of attacked sets with s in which s has the largest marginal vulnerability",
        columns=_MARGINAL,
        evidence=found.segmentation_adds_most,
        unit="% of sets", side="above", threshold=50.0, fewest=5, of="sets",
    ),
    Claim(
        id="R14",
        statement="Weights that favour the main task protect it against PGD.",
        published="RQ3, Table 1: the weighted model is less vulnerable for 20 of 20 pairs",
        measure="how much more PGD multiplies the error of a weighted pair than of the uniform one",
        columns=_TABLE_1,
        evidence=partial(found.weighted_against_uniform, attack="pgd"),
        unit="%", side="below", threshold=0.0, fewest=10, of="pairs",
    ),
    Claim(
        id="R15",
        statement="Weights that favour the main task do not protect it against Auto-PGD: the gain is below a tenth.",
        published="RQ3, Table 2: the weighted model is more vulnerable for 8 of 20 pairs; geometric mean "
        "ratio of errors 1.01. Where R14 finds no gain against PGD, there is none to lose",
        measure="how much more Auto-PGD multiplies the error of a weighted pair than of the uniform one",
        columns=_TABLE_2,
        evidence=partial(found.weighted_against_uniform, attack="apgd"),
        unit="%", side="above", threshold=-10.0, fewest=10, of="pairs",
    ),
    Claim(
        id="R16",
        statement="Weights that favour the main task do not protect it against WGD on both tasks: the gain is below a "
        "tenth.",
        published="RQ3, Table 2, whose caption names one attacked task: the weighted model is more vulnerable "
        "for 13 of 20 "
        "pairs; geometric mean ratio of errors 1.06. Where R14 finds no gain against PGD, there is none to lose",
        measure="how much more WGD on both tasks multiplies the error of a weighted pair than of the uniform one",
        columns=_TABLE_2,
        evidence=partial(found.weighted_against_uniform, attack="wgd"),
        unit="%", side="above", threshold=-10.0, fewest=10, of="pairs",
    ),
    Claim(
        id="R17",
        statement="Auto-PGD is stronger than PGD.",
        published="RQ3, Tables 1 and 2: larger in 42 of 45 cells that both have; of those of two tasks, in 37 of "
        "40",
        measure="how much more Auto-PGD multiplies the error of the main task than PGD",
        columns={**_TABLE_1, **_TABLE_2},
        evidence=partial(found.adaptive_against_pgd, attack="apgd"),
        unit="%", side="above", threshold=0.0, fewest=10, of="cells",
    ),
    Claim(
        id="R18",
        statement="WGD is stronger than PGD where all tasks of a pair are attacked.",
        published="RQ3, Tables 1 and 2, whose caption names one attacked task: larger in 37 of 40 cells that both have",
        measure="how much more WGD multiplies the error of the main task than PGD, both tasks attacked",
        columns={**_TABLE_1, **_TABLE_2},
        evidence=partial(found.adaptive_against_pgd, attack="wgd"),
        unit="%", side="above", threshold=0.0, fewest=10, of="cells",
    ),
    *(
        claim
        for number, (name, proxy, target, words, printed, threshold, answer) in zip(
            (19, 21, 23),
            (
                ("early epochs", "resnet18 ", "epochs", "A model at a third of its epochs", "0.55", 0.3,
                 "conclusion: fewer epochs are among the cheap surrogates; RQ4 calls the correlation medium"),
                ("smaller encoder", "resnet18", "resnet50", "A model with a smaller encoder", "0.94", 0.7,
                 "RQ4, answer: reliable indications of the benefits of adding a task"),
                ("clean performance", "resnet18 ", "relative vulnerability", "The error on clean images",
                 "0.98, which only the correlation with the adversarial error comes near", 0.7,
                 "RQ4, answer: reliable indications of the benefits of adding a task"),
            ),
            strict=True,
        )
        for claim in (
            Claim(
                id=f"R{number}",
                statement=f"{words} tells how vulnerable a combination of tasks is, over all main tasks.",
                published=f"RQ4, Table 3: Pearson's r {printed}",
                measure=f"Pearson's r of {name} and relative task vulnerability, over all cells",
                columns=_SURROGATES,
                evidence=partial(found.surrogate, name=name, scope="pooled", proxy=proxy, target=target),
                unit="r", side="above", threshold=threshold, fewest=10, of="cells",
            ),
            Claim(
                id=f"R{number + 1}",
                statement=f"{words} tells something of which auxiliary task is best for a given main task.",
                published=f"{answer}; no number within a main task is printed",
                measure=f"Pearson's r of {name} and relative task vulnerability, logarithms, within main tasks",
                columns=_SURROGATES,
                evidence=partial(found.surrogate, name=name, scope="within", proxy=proxy, target=target),
                unit="r", side="above", threshold=0.0, fewest=10, of="cells",
            ),
        )
    ),
)  # fmt: skip
