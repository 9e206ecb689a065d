"""What every data set of photographs gives: a listing of the pictures of one split, and one reader for all of them.

A listing has names, class numbers and class names before any image is read. Images are squashed to the size asked for,
their shape is not kept; what they hold but colour (transparency, a note to turn them) is left out.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from headstrong.data import image_checks
from headstrong.data.image_checks import UNREAD
from headstrong.data.image_errors import UNREADABLE, cut_short, reason
from headstrong.data.ordered import in_order
from headstrong.data.pictures import Picture, Skipped
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.seeds import derive_seed

LABEL = "class"  # of data sets whose pictures have one label only
BINARY = ("absent", "present")  # the classes of an attribute
SPLITS = ("train", "validation", "test")
SKIPPABLE = ", or leave out such pictures with on_bad_image: skip"


@dataclass(frozen=True)
class Part:
    """Which part of a data set is asked for; ConfigError for an unknown split and for a share outside (0, 1).

    domains: all of the study. test_share: of each class, where there are no official test pictures. validation_share:
    of each class's training pictures, where there are no official validation pictures; None: none are held out.
    official: the files are those of a published data set.
    """

    domain: str
    split: str
    seed: int
    domains: Sequence[str] = ()
    test_share: float | None = None
    validation_share: float | None = None
    official: bool = False

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(f"split '{self.split}' is unknown; choose from {', '.join(SPLITS)}")
        for name, share in (("test_share", self.test_share), ("validation_share", self.validation_share)):
            if share is not None and not 0 < share < 1:
                raise ConfigError(f"{name} {share:g}: expected a share between 0 and 1, both left out")

    def check_partitioned(self) -> None:
        """ConfigError for a validation share, of a data set that has its own validation pictures."""
        if self.validation_share is not None:
            raise ConfigError(f"{self.domain} has official validation pictures: leave validation_share out")


@dataclass(frozen=True)
class Listing:
    """The pictures of one split of a data set, in the order of the file to make.

    place: folder of the data set or domain, for messages. folder: the names are files relative to it. names: of the N
    pictures, each once. labels: label -> class numbers int16 (N,). classes: label -> names of its classes. note: a line
    about what is there. pixels: name -> image uint8 (H, W, 3), where images are in memory already; files are then not
    read. unusable: name -> why a picture must not be used although it can be read, such as the same picture in another
    split. variant: which of several publications of the data set this is; "": there is only one.
    """

    place: Path
    folder: Path
    split: str
    names: list[str]
    labels: Mapping[str, NDArray[np.int16]]
    classes: Mapping[str, list[str]]
    note: str
    pixels: Mapping[str, NDArray[np.uint8]] | None = None
    unusable: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def samples(
        self, size: tuple[int, int], count: int | None = None, processes: int = 1, skip: bool = False, first: int = 0
    ) -> Iterator[Picture | Skipped]:
        """The first `count` pictures (None: all) as (name, rgb uint8 (3, H, W), {label: class number}).

        first: the picture to begin with. size: (H, W). processes: side by side; the bits do not depend on it.
        skip: a picture that cannot be read is given as `Skipped`, else it raises BrokenFileError or MissingDataError,
        naming the file. ConfigError for a count that cannot be.
        """
        if count is not None and not 1 <= count <= len(self):
            raise ConfigError(
                f"{self.split}: {count} pictures asked for, but {self.place} has {len(self)}; ask for no more"
            )
        return self._samples(size, self.names[:count], processes, skip, first)

    def _samples(
        self, size: tuple[int, int], names: list[str], processes: int, skip: bool, first: int
    ) -> Iterator[Picture | Skipped]:
        left = names[first:]
        for row, (name, image) in enumerate(zip(left, self._images(size, left, processes, skip), strict=True), first):
            if isinstance(image, str):
                yield Skipped(name, image)
            else:
                yield name, image, {label: int(numbers[row]) for label, numbers in self.labels.items()}

    def _images(
        self, size: tuple[int, int], names: list[str], processes: int, skip: bool
    ) -> Iterator[NDArray[np.uint8] | str]:
        if self.pixels is None:
            asked = [(name, self.unusable.get(name, "")) for name in names]
            return in_order(partial(_image_or_reason, self.folder, self.place, size, skip), asked, processes)
        return (_resized(Image.fromarray(self.pixels[name]), size) for name in names)


def of_classes(
    place: Path,
    folder: Path,
    split: str,
    columns: Mapping[str, Sequence[str]],
    classes: list[str],
    note: str,
    pixels: Mapping[str, NDArray[np.uint8]] | None = None,
    unusable: Mapping[str, str] | None = None,
    variant: str = "",
) -> Listing:
    """The listing of pictures with one label, "class": the classes take turns, so that the first pictures, however
    many, have as many of each as there can be.

    columns: class -> names of its pictures. classes: all of them, in the order of their numbers.
    """
    number = {name: position for position, name in enumerate(classes)}
    turns = range(max(map(len, columns.values()), default=0))
    drawn = [(column[turn], number[name]) for turn in turns for name, column in columns.items() if turn < len(column)]
    labels = {LABEL: np.array([found for _, found in drawn], dtype=np.int16)}
    names = [name for name, _ in drawn]
    return Listing(place, folder, split, names, labels, {LABEL: classes}, note, pixels, unusable or {}, variant)


def check_number(place: Path, found: int, what: str, official: int) -> None:
    """BrokenFileError where there are more pictures, `what` they are for, than the official data set has."""
    if found > official:
        raise BrokenFileError(
            f"{place}: {found} {what}, the official data set has {official}; remove what does not belong to it"
        )


def permuted(items: Sequence[str], *parts: object) -> list[str]:
    """The items in an order that `parts` (a seed, names) decide."""
    order = np.random.default_rng(derive_seed(*parts)).permutation(len(items))
    return [items[position] for position in order]


# --- images --------------------------------------------------------------------------------------------------------


def _image_or_reason(
    folder: Path, place: Path, size: tuple[int, int], skip: bool, asked: tuple[str, str]
) -> NDArray[np.uint8] | str:
    """The image of a name, or why it is skipped, where bad images are. asked: name, and why it is unusable."""
    name, unusable = asked
    try:
        if unusable:
            raise BrokenFileError(f"{folder / name}: {unusable}")
        return read_image(folder / name, size)
    except (BrokenFileError, MissingDataError) as error:
        if not skip:
            raise type(error)(f"{error}{SKIPPABLE}") from error
        # It goes into the file, whose bytes are not to depend on where the data lie.
        return str(error).replace(f"{place.parent}{os.sep}", "")


def read_image(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image file as rgb uint8 (3, H, W), squashed to `size` (H, W); MissingDataError where there is none,
    BrokenFileError where it cannot be read.

    Bilinear with antialiasing, as torchvision resizes Pillow's images.
    """
    return _resized(load_image(path), size)


def load_image(path: Path) -> Image.Image:
    """An image file, decoded to its end, as 8-bit colour; MissingDataError and BrokenFileError as `read_image`."""
    fault = image_checks.file_fault(path)
    if fault is not None and fault[0] == "missing":
        raise MissingDataError(f"{path}: no such image, but it is listed; place it there")
    if path.name.lower().endswith(UNREAD):
        raise BrokenFileError(f"{path}: {path.suffix} images are not read; convert it to .png or remove it")
    if fault is not None:
        raise _unusable(path, fault[1])
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            colour = _to_rgb(image)
    except UnidentifiedImageError as error:  # its own words name an object in memory
        raise _unusable(path, "cannot identify the kind of image") from error
    except UNREADABLE as error:
        raise _unusable(path, reason(error)) from error
    cut = cut_short(data)
    if cut is not None:
        raise _unusable(path, cut)
    return colour


def _unusable(path: Path, said: str) -> BrokenFileError:
    return BrokenFileError(f"{path}: truncated or not an image ({said}); get it again or remove it")


def _resized(colour: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    resized = colour.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would cut 16-bit grey off at 255.
        grey: NDArray[Any] = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.rint(grey.clip(0, 255)).astype(np.uint8))
    return image.convert("RGB")
