"""A folder of images, a class a folder in it: its files, their classes, and those that are left out."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdcache.errors import InvalidInputError
from kdcache.views.own_labels import listed

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".jfif", ".avif")
DROPPINGS = {".DS_Store", "Thumbs.db", "desktop.ini"}  # of file managers
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class Listing:
    """The image files of a folder, by their paths in it, in the order of torchvision's ImageFolder: class by class.
    `numbers` are their classes, as `class_names` has them in order."""

    names: list[str]
    numbers: list[int]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def list_images(root: Path) -> Listing:
    """The images under `root`/CLASS/. Raises InvalidInputError where there are none, or none in some class."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidInputError(
            f"data folder: {root} is no folder with a folder of images a class ({error})"
        ) from error
    class_names = [entry.name for entry in entries if entry.is_dir()]
    beside = [entry.name for entry in entries if not entry.is_dir() and is_image(entry.name)]
    if not class_names:
        have = f"it has {len(beside):,} images and no folder; " if beside else ""
        raise InvalidInputError(
            f"data folder: {root} is no folder with a folder of images a class; {have}move its images into CLASS/"
        )
    names, numbers, others = [], [], Counter[str]()
    by_class: dict[str, Counter[str]] = {}
    for number, class_name in enumerate(class_names):
        by_class[class_name] = Counter()
        for name in _files(root, class_name):
            if is_image(name):
                names.append(name)
                numbers.append(number)
            elif (base := name.rpartition("/")[2]) not in DROPPINGS:
                by_class[class_name][os.path.splitext(base)[1].lower() or base] += 1
        others += by_class[class_name]
    _require_images(root, class_names, numbers, by_class)
    _require_classes(root, class_names, names)
    return Listing(names, numbers, tuple(class_names), tuple(_notes(others, beside, class_names)))


def is_image(name: str) -> bool:
    """True for a file that is taken, by its name."""
    return name.lower().endswith(SUFFIXES)


def _files(root: Path, class_name: str) -> Iterator[str]:
    """All files of a class, in any depth, as paths in `root`."""
    top = os.path.join(root, class_name)
    for folder, _, files in sorted(os.walk(top, followlinks=True)):
        prefix = class_name + folder[len(top) :].replace(os.sep, "/")
        yield from (f"{prefix}/{file}" for file in sorted(files))


def _require_images(
    root: Path, class_names: Sequence[str], numbers: Sequence[int], by_class: Mapping[str, Counter[str]]
) -> None:
    used = set(numbers)
    empty = [name for number, name in enumerate(class_names) if number not in used]
    if empty:
        others = by_class[empty[0]]
        holds = f"{empty[0]} holds {_by_suffix(others)}; " if others else ""
        raise InvalidInputError(
            f"data folder: {root} is no folder with a folder of images a class: {len(empty)} of its "
            f"{len(class_names)} folders have none ({listed(empty)}); {holds}images end in {', '.join(SUFFIXES)}; "
            "remove these folders, or give them images"
        )


def _require_classes(root: Path, class_names: Sequence[str], names: Sequence[str]) -> None:
    """Raises InvalidInputError where the folders are splits and not classes."""
    if {name.lower() for name in class_names} <= SPLITS and all(name.count("/") > 1 for name in names):
        raise InvalidInputError(
            f"data folder: the folders of {root} are {', '.join(class_names)}, which are splits and no classes; "
            f"choose one with --data-set split={class_names[0]}"
        )


def _notes(others: Counter[str], beside: Sequence[str], class_names: Sequence[str]) -> Iterator[str]:
    if others:
        verb = "file is no picture by its name" if others.total() == 1 else "files are no pictures by their names"
        yield f"{others.total():,} {verb} ({_by_suffix(others)})"
    if beside:
        yield f"{len(beside):,} pictures lie beside the folders of classes and are left out: {listed(beside)}"
    if hidden := [name for name in class_names if name.startswith(".")]:
        yield f"hidden folders are taken as classes: {listed(hidden)}"


def _by_suffix(counts: Counter[str]) -> str:
    return listed([f"{suffix} {count:,}" for suffix, count in counts.most_common()])
