"""The switches of the protocol in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS = {
    "published": "as the paper says",
    "released": "as the released code does",
    "corrected": "what a careful reader of both would do",
}

# switch -> (what it decides, {value -> what it means})
SWITCHES: Mapping[str, tuple[str, Mapping[Any, str]]] = {
    "start": (
        "Where the iterative attack starts",
        {
            "clean": "at the image itself",
            "uniform": "at a random point of the ball around the image",
            "corner": "at the corner image + radius, which the released code reaches by a mistake in its clamping",
        },
    ),
    "baseline": (
        "Error that an attack's error is compared with",
        {
            "clean": "that of the clean image",
            "start": "that at the attack's start, which the released scripts take for the clean one",
        },
    ),
    "aggregation": (
        "Relative task vulnerability over samples",
        {
            "ratio_of_means": "mean error under attack over mean clean error, as the released scripts compute it",
            "mean_of_ratios": "mean of each sample's relative increase, as printed; samples without error left out",
        },
    ),
    "adversarial_vulnerability": (
        "Adversarial vulnerability",
        {
            "definition": "mean over samples of the absolute change of the attacked tasks' joint loss (Definition 1)",
            "released": "absolute value of the mean change, over all tasks of the model, attacked or not",
        },
    ),
    "l2_step": (
        "Step of PGD in L2",
        {
            "direction": "along each image's own normalised gradient, projected exactly on its own ball",
            "released": "the raw gradient, rescaled so that the whole batch together is as long as the radius",
        },
    ),
    "wgd": (
        "Weights of the weighted gradient attack",
        {
            "published": "the relative inverse attack rate of Definition 5: tasks weigh more the more they have risen",
            "released": "one over the task's loss at the attack's start, after a first unweighted step",
            "cyclic": "one task per step, in turn, the released code's other form",
        },
    ),
    "optimizer": (
        "Optimiser",
        {
            "adam": "Adam, as in every released job script",
            "sgd": "SGD with momentum 0.99, as the supplement says",
        },
    ),
    "shuffle": (
        "Order of the training images",
        {True: "shuffled every epoch", False: "the same in every epoch, as released"},
    ),
    "loss_pixels": (
        "Denominator of a masked loss",
        {
            "all": "all pixels: masked ones count as zero loss, as released",
            "valid": "only the pixels that have a label",
        },
    ),
    "error_pixels": (
        "Pixels over which errors are taken",
        {"all": "all, including those without a label, as released", "valid": "only those that have a label"},
    ),
    "miou": (
        "Unlabelled pixels in the mIoU",
        {"labelled": "do not count", "all": "count as a class of their own, as released"},
    ),
    "class_weights": (
        "Class weights of the cross-entropy",
        {
            "uniform": "none",
            "prior": "rare classes weigh more, as in the released code",
            "published": "the numbers published for Taskonomy",
        },
    ),
    "output_start": (
        "Predictions before training",
        {"random": "from the published initialisation", "mean": "the training mean of every target"},
    ),
    "curvature": (
        "Targets of principal curvature",
        {
            "decoded": "the two curvatures",
            "grey": "two nearly constant channels: the released loader reads the colour image as grey",
        },
    ),
    "depth": (
        "Targets of depth",
        {"encoded": "the logarithmic encoding of Taskonomy", "metres": "metres, as MTAN has them"},
    ),
    "normals": (
        "Loss of surface normals",
        {"l1": "the mean absolute difference", "cosine": "one minus the cosine of the angle, as MTAN has it"},
    ),
    "log_mean": (
        "Generators: the mean over a batch",
        {"outside": "of the logarithms of the losses (MTA)", "inside": "inside the logarithm (GAP's code)"},
    ),
    "untargeted_loss": (
        "Generators of untargeted perturbations of classes",
        {
            "truth": "lead away from the true class (MTA)",
            "least_likely": "lead to the class least likely on the clean image (GAP's code)",
        },
    ),
    "perturbation_scale": (
        "Generators: size of a perturbation",
        {"whole": "scaled by the norm of the whole of it (MTA)", "channel": "scaled channel by channel (GAP's code)"},
    ),
    "large_angles": (
        "ArcFace and CAMRI: angle and margin beyond a half turn",
        {
            "monotone": "the logit goes on falling, as SphereFace continues it",
            "unhandled": "the cosine, which rises again (the official code)",
        },
    ),
    "ranking": (
        "Important classes: the pictures they are ranked by",
        {"validation": "validation pictures", "test": "test pictures"},
    ),
    "cf_delta": (
        "Hidden tasks: what CF-delta aims at",
        {
            "product": "as far along the direction of forgetting as can be",
            "target": "a point on it, `reach` times as far as the forgetful features",
        },
    ),
    "forgetting_direction": (
        "Hidden tasks: the direction of forgetting",
        {"image": "each image's own", "mean": "the mean over the attacker's training images"},
    ),
    "feature_distance": (
        "Hidden tasks: how features are compared",
        {"squared": "by squared Euclidean distance", "cosine": "by the angle between them"},
    ),
    "taskonomy_split": (
        "Taskonomy: what is held out for testing",
        {"point": "camera points from 1200 on, as released", "buildings": "whole buildings, where there are several"},
    ),
}


COUNTED: Mapping[Any, str] = {
    "valid": "over the pixels that have a label",
    "all": "over all pixels, those without a label as if their truth were 0",
}
CONVENTIONS: Mapping[Any, str] = {
    "labelled": "over labelled pixels",
    "all": "with unlabelled pixels being a class of their own",
}


def errors_in_words(protocol: Mapping[str, Any]) -> str:
    """What the errors of a study are under its resolved switches, as docs/protocols.md says it. Of a switch that is not
    given nothing is said; depths are then encoded."""
    metres = protocol.get("depth") == "metres"
    target = "of the target (d and D in square metres, the others encoded)" if metres else "of the encoded target"
    squared = ["mean squared errors per pixel and channel", target, COUNTED.get(protocol.get("error_pixels"), "")]
    share = ["for s 100 − mIoU in percent", CONVENTIONS.get(protocol.get("miou"), "")]
    words = [" ".join(part for part in parts if part) for parts in (squared, share)]
    text = f"Errors are {'; '.join(words)}. Both are averaged over images."
    if protocol.get("normals") == "cosine":
        text += " The loss of n says nothing about the length of a prediction, which its error counts."
    return text


def in_words(protocol: Mapping[str, Any]) -> tuple[str, list[dict[str, str]]]:
    """(what the preset means, one row {switch, decides, value, meaning} per switch) of a resolved protocol.

    A switch or a value these words do not know is shown as it is, and said to have no description.
    """
    preset = str(protocol.get("preset", "not named"))
    rows = []
    for switch, value in protocol.items():
        if switch == "preset":
            continue
        decides, meanings = SWITCHES.get(switch, ("(no description)", {}))
        meaning = "follows the preset" if value is None else meanings.get(value, "(no description)")
        rows.append(
            {
                "switch": switch,
                "decides": decides,
                "value": str(value).lower() if isinstance(value, bool) else str(value),
                "meaning": meaning,
            }
        )
    return f"{preset}: {PRESETS.get(preset, 'no description')}", rows
