"""What config.yaml says about labelled pictures and the classifiers of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from headstrong.attackconfig import Name, PositiveFloat, PositiveInt
from headstrong.jobs import ClassifierJob, ClassLossJob
from headstrong.picturelabels import CELEBA_LABELS, DEEPFASHION_LABELS, OBJECT_LABELS
from headstrong.protocol import Section
from headstrong.scheduleconfig import ScheduleConfig, schedule_of

SIZE_STEP = 4  # the generators halve the image twice
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Share = Annotated[float, Field(gt=0, lt=1)]
OBJECT_DOMAINS = ("studio", "room", "webcam")
OFFICE_DOMAINS = ("amazon", "dslr", "webcam")
SINGLE = ("cifar10", "gtsrb", "awa2", "celeba", "deepfashion")  # one domain, called as the source
PARTITIONED = ("celeba", "deepfashion")  # their validation pictures are part of the official partition
TESTS_CHOSEN = ("office31", "folder", "awa2")  # no official test pictures
LABELS = {"objects": OBJECT_LABELS, "celeba": CELEBA_LABELS, "deepfashion": DEEPFASHION_LABELS}  # others: class


class PicturesConfig(Section):
    """Labelled pictures of one or more domains, one cache per domain and split."""

    source: Literal["objects", "office31", "folder", "cifar10", "gtsrb", "awa2", "celeba", "deepfashion"] = Field(
        description="objects: embedded, ray-cast. folder: any folder of domains. Others: real photographs."
    )
    folder: FolderName | None = Field(None, description="folder: its name beside the other real data.")
    domains: Annotated[list[FolderName], Field(min_length=1)] = Field(
        description="Domains, in the order of the tables; may be left out where the source has but one."
    )
    size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] = Field(
        description=f"Height and width in pixels, multiples of {SIZE_STEP}."
    )
    train: PositiveInt | None = Field(None, description="Training pictures per domain; null: all (not for objects).")
    validation: PositiveInt | None = Field(
        None, description="Validation pictures per domain; null: all that are held out, of objects none."
    )
    test: PositiveInt | None = Field(None, description="Test pictures per domain; null: all (not for objects).")
    test_share: Share = Field(0.2, description="office31, folder, awa2: share of each class that is for tests.")
    validation_share: Share | None = Field(
        None, description="Share of the training pictures held out for validation; null: none, or as officially."
    )
    on_bad_image: Literal["fail", "skip"] = Field(
        "fail", description="A picture that cannot be read: stop, or leave it out, count and list it."
    )

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that every picture has."""
        return LABELS.get(self.source, ("class",))

    @property
    def validated(self) -> bool:
        """Whether there are validation pictures."""
        if self.source == "objects":
            return self.validation is not None
        return self.source in PARTITIONED or self.validation_share is not None

    @property
    def dataset(self) -> str:
        """What the data set is called: that of a folder of one's own by the name of the folder."""
        return f"{self.folder} (own folder)" if self.folder else self.source

    @model_validator(mode="before")
    @classmethod
    def _one_domain(cls, given: Any) -> Any:
        single = isinstance(given, dict) and given.get("source") in SINGLE and given.get("domains") is None
        return {**given, "domains": [given["source"]]} if single else given

    @model_validator(mode="after")
    def _check(self) -> PicturesConfig:
        for side in self.size:
            if side % SIZE_STEP:
                raise ValueError(f"size {self.size}: both sides must be multiples of {SIZE_STEP}")
        if len({domain.casefold() for domain in self.domains}) < len(self.domains):
            raise ValueError(f"domains {self.domains}: each at most once, whatever the case of its letters")
        own = {source: (source,) for source in SINGLE}
        known = {"objects": OBJECT_DOMAINS, "office31": OFFICE_DOMAINS, **own}.get(self.source)
        unknown = [domain for domain in self.domains if known and domain not in known]
        if known and unknown:
            raise ValueError(f"domains: {self.source} has no {unknown[0]!r}; it has {', '.join(known)}")
        if self.source == "objects" and (self.train is None or self.test is None):
            raise ValueError("objects makes any number of pictures: train and test must be numbers, not null")
        if (self.folder is not None) != (self.source == "folder"):
            raise ValueError("folder: source folder needs the name of one, no other source has one")
        if self.validation_share is not None and self.source in ("objects", *PARTITIONED):
            own_way = "makes as many as `validation` says" if self.source == "objects" else "has official ones"
            raise ValueError(f"validation_share: {self.source} {own_way}; leave it out")
        if self.validation is not None and not self.validated:
            raise ValueError("validation: no pictures are held out; give a validation_share")
        # A study's whole configuration names every key, with the value that says nothing.
        chosen = self.test_share != type(self).model_fields["test_share"].default
        if chosen and self.source in SINGLE and self.source not in TESTS_CHOSEN:
            raise ValueError(f"test_share: {self.source} has official test pictures; leave it out")
        return self


class ClassifierTrainingConfig(ScheduleConfig):
    """How a classifier is trained."""

    optimizer: Literal["adam", "sgd"] = Field("adam", description="Optimiser.")
    learning_rate: PositiveFloat = Field(0.001, description="Learning rate.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU that has it, else float32."
    )


class NetworkConfig(Section):
    """A network that classifies pictures, and how it is trained."""

    pictures: Name = Field(description="Key in `pictures`.")
    backbone: str = Field(
        "resnet18",
        description="resnet18, resnet34, resnet50, camri (the network of the CAMRI paper's code), or a classifier "
        "torchvision has.",
    )
    width: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor on every channel count of a ResNet, or of camri."
    )
    stem: Literal["published", "unpooled"] = Field(
        "published", description="unpooled: a ResNet without the pooling of its stem, for small pictures."
    )
    pretrained: str | None = Field(
        None, pattern=r"^[^/\\]+$", description="File of weights to start from, in weights/ beside the real data."
    )
    feature: PositiveInt | None = Field(
        None, description="Length of the feature vector, made by a linear layer and batch norm; null: the backbone's."
    )
    augment: bool = Field(True, description="Random horizontal flips and shifts.")
    training: ClassifierTrainingConfig


class ClassifierConfig(NetworkConfig):
    """One classifier for each domain of a set of pictures."""

    labels: Annotated[list[str], Field(min_length=1)] = Field(description="Labels to tell, a head for each.")


def classifier_job(
    network: NetworkConfig, name: str, labels: tuple[str, ...], seed: int, loss: ClassLossJob | None = None
) -> ClassifierJob:
    """What the training job of one classifier with this network needs to know; loss: None is cross entropy."""
    training = network.training
    return ClassifierJob(
        id=name,
        backbone=network.backbone,
        width=network.width,
        labels=labels,
        pretrained=network.pretrained,
        epochs=training.epochs,
        batch_size=training.batch_size,
        **schedule_of(training, training.optimizer),
        augment=network.augment,
        precision=training.precision,
        seed=seed,
        stem=network.stem,
        feature=network.feature,
        loss=loss,
    )
