"""Classifiers of pictures: a backbone that the labels share and one layer per label (the heads), linear or of cosines.

ResNet-18, -34 and -50 (He et al. 2016) are built here, at any width, with torchvision's parameter names, so that its
weights load. Other classification networks are torchvision's own, which is imported only when one is asked for.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from headstrong.data.acquire import VARIABLE
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.models.blocks import BasicBlock, Bottleneck
from headstrong.models.camri import CamriNetwork, CosineLayer
from headstrong.models.encoders import scaled
from headstrong.models.multitask import initialise
from headstrong.models.seeding import seeded
from headstrong.models.store import read_tensors, write_tensors
from headstrong.provenance import ROOT

FORMAT = "headstrong-classifier-1"
RESNETS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    # name: kind of block, blocks per stage
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
CAMRI = "camri"  # the network of the CAMRI paper's code
STEMS = ("published", "unpooled")
HEADS = ("linear", "cosine")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what torchvision's weights expect
# The two networks with auxiliary classifiers; their published weights expect inputs scaled by themselves once more.
_INCEPTIONS = {"aux_logits": False, "init_weights": True, "transform_input": True}
_OPTIONS = {"googlenet": _INCEPTIONS, "inception_v3": _INCEPTIONS}
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


class ResNet(nn.Module):
    """A ResNet without its classification layer: (B, 3, H, W), normalised, to (B, channels). H and W: any size."""

    def __init__(self, name: str, width: float = 1.0, pooled: bool = True) -> None:
        super().__init__()
        block, counts = RESNETS[name]
        before = scaled(64, width)
        self.conv1 = nn.Conv2d(3, before, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pooled else nn.Identity()
        for position, count in enumerate(counts):
            planes = scaled(64 * 2**position, width)
            self.add_module(f"layer{position + 1}", _stage(block, before, planes, count, 2 if position else 1))
            before = planes * block.expansion
        self.channels = before

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels), the means over the last maps."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for position in range(4):
            x = self.get_submodule(f"layer{position + 1}")(x)
        return x.mean(dim=(2, 3))


def _stage(kind: type[BasicBlock | Bottleneck], before: int, planes: int, count: int, stride: int) -> nn.Sequential:
    """`count` blocks that end in `planes` times the kind's expansion channels; the first has the stride."""
    after = planes * kind.expansion
    blocks: list[nn.Module] = []
    for index in range(count):
        step, project = (stride, stride != 1 or before != after) if index == 0 else (1, False)
        if issubclass(kind, Bottleneck):
            blocks.append(kind(before, planes, after, step, project=project))
        else:
            blocks.append(kind(before, after, step, project=project))
        before = after
    return nn.Sequential(*blocks)


class Classifier(nn.Module):
    """Maps images (B, 3, H, W) in [0, 1] to logits (B, C) per label, or to cosines; made by `build_classifier`.

    `classes` is the number of classes C of each label, in the order of `heads`; `channels` the length F of a feature
    vector; `classification_layer` the name of the layer that the heads stand in for. Where `head` is "cosine", the
    outputs are the cosines of the angles between features and weight vectors; the largest tells the class either way.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        heads: Mapping[str, int],
        width: float = 1.0,
        seed: int = 0,
        stem: str = "published",
        feature: int | None = None,
        head: str = "linear",
    ) -> None:
        super().__init__()
        self.backbone_name, self.width, self.classes, self.stem = backbone, width, dict(heads), stem
        self.feature, self.head = feature, head
        self.backbone: nn.Module
        with seeded(seed, "init", "backbone"):
            if backbone in RESNETS:
                resnet = initialise(ResNet(backbone, width, pooled=stem == "published"))
                self.backbone, self.channels, self.classification_layer = resnet, resnet.channels, "fc"
            elif backbone == CAMRI:
                network = initialise(CamriNetwork(width))
                self.backbone, self.channels, self.classification_layer = network, network.channels, "fc"
            else:
                self.backbone, self.channels, self.classification_layer = _torchvision_backbone(backbone)
        self.embedding: nn.Module = nn.Identity()
        if feature is not None:
            with seeded(seed, "init", "embedding"):
                self.embedding, self.channels = _embedding(self.channels, feature), feature
        # A list: a ModuleDict refuses some labels, such as "type", which name what it has already.
        self.heads = nn.ModuleList()
        for label, count in heads.items():
            with seeded(seed, "init", f"head {label}"):
                layer = CosineLayer if head == "cosine" else nn.Linear
                self.heads.append(layer(self.channels, count))
        mean, std = ((0.0,) * 3, (1.0,) * 3) if backbone == CAMRI else (IMAGENET_MEAN, IMAGENET_STD)
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits or cosines (B, C) by label; images (B, 3, H, W) in [0, 1]."""
        return self.outputs(self.features(images))

    def outputs(self, features: Tensor) -> dict[str, Tensor]:
        """Logits or cosines (B, C) by label, of features (B, F)."""
        return {label: head(features) for label, head in zip(self.classes, self.heads, strict=True)}

    def features(self, images: Tensor) -> Tensor:
        """What the heads see: (B, F); images (B, 3, H, W) in [0, 1]."""
        found: Tensor = self.embedding(self.backbone((images - self.mean) / self.std))
        return found


def build_classifier(
    backbone: str,
    heads: Mapping[str, int],
    width: float = 1.0,
    seed: int = 0,
    pretrained: Path | None = None,
    stem: str = "published",
    feature: int | None = None,
    head: str = "linear",
) -> Classifier:
    """A fresh classifier on the CPU, in training mode.

    backbone: one of `RESNETS`, "camri", or any classification network of torchvision that ends in a linear layer.
    heads: number of classes by label, at least 2 each. width: factor on every channel count of a ResNet and of "camri";
    the others have width 1.
    pretrained: file with weights of the whole published network, of which the backbone is taken (`load_pretrained`).
    stem: "unpooled" leaves out the maximum pooling of a ResNet's stem, for small images, of which it loses too much.
    feature: length of the feature vector that a linear layer and batch normalisation make; None: the backbone's own.
    head: "linear", or "cosine" for the losses of angles.
    Equal arguments give equal weights, and a head starts the same whatever its companions; torch's own random state is
    left alone. Raises ConfigError for arguments that cannot be, and what `load_pretrained` raises.
    """
    if not heads or min(heads.values()) < 2:
        raise ConfigError(f"classes of the labels {dict(heads)}: expected at least one label, and 2 classes of each")
    if not width > 0:
        raise ConfigError(f"width {width}: expected a number above 0; 1 is the published network")
    if width != 1 and backbone not in (*RESNETS, CAMRI):
        known = ", ".join((*RESNETS, CAMRI))
        raise ConfigError(f"width {width}: only {known} come in other widths than 1, not '{backbone}'")
    if stem not in STEMS or (stem != "published" and backbone not in RESNETS):
        raise ConfigError(f"stem '{stem}' of {backbone}: choose {' or '.join(STEMS)}; the latter of a ResNet only")
    if head not in HEADS or (feature is not None and feature < 1):
        raise ConfigError(f"head '{head}', feature {feature}: choose {' or '.join(HEADS)}, and at least one number")
    if backbone == CAMRI and pretrained is not None:
        raise ConfigError(f"pretrained {pretrained.name}: there are no published weights of '{CAMRI}'; leave it out")
    model = Classifier(backbone, heads, width, seed, stem, feature, head)
    if pretrained is not None:
        load_pretrained(model, pretrained)
    return model


def _embedding(before: int, feature: int) -> nn.Sequential:
    """The layer that makes the feature: weights of He et al. (2015), as in the CAMRI paper's code."""
    linear = nn.Linear(before, feature)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, nn.BatchNorm1d(feature))


def _torchvision_backbone(name: str) -> tuple[nn.Module, int, str]:
    """A network of torchvision without its classification layer, the length of its features, that layer's name."""
    from torchvision import models  # late: it takes a second and a half, and the own networks need none of it

    if name not in models.list_models(module=models):
        raise ConfigError(
            f"backbone '{name}': unknown; choose {', '.join((*RESNETS, CAMRI))}, or a classification network that "
            f"torchvision has, such as mobilenet_v2 or vgg16_bn"
        )
    if name.startswith("mnasnet"):  # it loads only with a version number that safetensors does not keep
        raise ConfigError(f"backbone '{name}': cannot be stored; choose {', '.join(RESNETS)} or another")
    network = models.get_model(name, weights=None, **_OPTIONS.get(name, {}))
    layer, last = [pair for pair in network.named_modules() if any(True for _ in pair[1].parameters(recurse=False))][-1]
    if not isinstance(last, nn.Linear):
        raise ConfigError(f"backbone '{name}': does not end in a linear layer; choose {', '.join(RESNETS)} or another")
    network.set_submodule(layer, nn.Identity())
    return network, last.in_features, layer


def find_pretrained(name: str) -> Path:
    """The file of that name among the weights beside the real data.

    Raises ConfigError for a path instead of a name, MissingDataError, which says what to place where.
    """
    if Path(name).name != name:
        raise ConfigError(f"pretrained '{name}': expected the name of a file in weights/ beside the real data")
    path = Path(os.environ.get(VARIABLE) or ROOT / "data") / "weights" / name
    if not path.is_file():
        raise MissingDataError(
            f"{path}: no such file; get torchvision's weights of this backbone from "
            f"https://download.pytorch.org/models/ and place them there, or set {VARIABLE}"
        )
    return path


def load_pretrained(model: Classifier, path: Path) -> None:
    """Put weights of the published network into the backbone; those of its classification layer are dropped.

    A file that ends in .safetensors is read as that, any other as torch.save wrote it, and only if it holds nothing but
    tensors: a pickle can run code. Raises BrokenFileError for any other content, and for tensors whose names or shapes
    are not the backbone's.
    """
    tensors = _read_foreign(path)
    dropped = (f"{model.classification_layer}.", *_AUXILIARY)
    for name in [name for name in tensors if name.startswith(dropped)]:
        del tensors[name]
    try:
        model.backbone.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()).partition("state_dict for ")[2] or str(error)
        raise BrokenFileError(
            f"{path}: not weights of {model.backbone_name} at width {model.width:g} ({reason[:150]}); name the file "
            f"that belongs to this backbone, or none"
        ) from error


def _read_foreign(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that others wrote."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings(action="ignore"):  # on what is then refused, in one line
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the reading of a foreign file ends in, it is the file's fault
        raise BrokenFileError(
            f"{path}: refused: truncated, or holds other things than tensors, which could run code "
            f"({type(error).__name__}); get it again from https://download.pytorch.org/models/"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise BrokenFileError(f"{path}: expected tensors by name, as torchvision stores a network; get another file")
    return found  # as it is: torch keeps versions of the layers in it


def save_classifier(
    path: Path,
    model: Classifier,
    classes: Mapping[str, list[str]],
    job: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a classifier; the file appears when whole. Equal classifiers give equal bytes.

    classes: names by label, as many as the heads have classes. job: the training job as a dictionary. extra: code
    digest and such. All of it can be read back with `load_classifier_metadata`. Raises ValueError where names and
    classes of a head differ in number.
    """
    named = {label: list(classes[label]) for label in model.classes}
    if {label: len(names) for label, names in named.items()} != model.classes:
        raise ValueError(f"{path}: names of {named} for heads of {model.classes}")
    description = {
        "format": FORMAT,
        "backbone": model.backbone_name,
        "width": model.width,
        "stem": model.stem,
        "feature": model.feature,
        "head": model.head,
        "labels": list(named),  # JSON keeps no order of `classes`
        "classes": named,
        "job": job,
        **(extra or {}),
    }
    write_tensors(path, model.state_dict(), description)


def load_classifier(path: Path, device: torch.device | str = "cpu") -> Classifier:
    """The classifier of a file, in evaluation mode, on `device`, in the memory layout of training.

    Raises MissingDataError where there is no file; BrokenFileError, naming it, for a pickle, a truncated file, or a
    safetensors file of something else.
    """
    tensors, description = _read_checked(path)
    try:
        heads = {label: len(description["classes"][label]) for label in description["labels"]}
        # Not on torch's meta device, though the weights come from the file: RegNets cannot be built there.
        parts = {key: description[key] for key in ("stem", "feature", "head")}
        model = build_classifier(description["backbone"], heads, description["width"], **parts)
        model.load_state_dict(tensors)
    except (ConfigError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenFileError(
            f"{path}: its tensors are not those of the classifier it names ({reason}); {_REMEDY}"
        ) from error
    return to_device(model, device).eval()


def to_device(model: Classifier, device: torch.device | str) -> Classifier:
    """The same classifier on a device, its weights in channels-last order, as `models.use_channels_last` has it."""
    moved: Classifier = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def load_classifier_metadata(path: Path) -> dict[str, Any]:
    """What `save_classifier` wrote beside the weights: the network's parts, labels, classes, job and the extra entries.

    Raises MissingDataError where there is no file, BrokenFileError for anything but a classifier.
    """
    return _read_checked(path)[1]


def _read_checked(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; train this classifier first")
    tensors, description = read_tensors(path)
    if description.get("format") != FORMAT:
        raise BrokenFileError(f"{path}: not a classifier of headstrong ({FORMAT}); {_REMEDY}")
    return tensors, description


_REMEDY = "delete it and train this classifier again"
