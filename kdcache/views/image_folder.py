"""A folder of images, a class a folder in it: its files, their classes, and those that are left out."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdcache.errors import InvalidInputError
from kdcache.views.label_numbers import listed

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".jfif", ".avif")
DROPPINGS = {".DS_Store", "Thumbs.db", "desktop.ini"}  # of file managers
BESIDE = "._"
TOOLS = {"@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation"}


@dataclass(frozen=True)
class Listing:
    """The image files of a folder, by their paths in it, in the order of torchvision's ImageFolder: class by class.
    `numbers` are their classes, as `class_names` has them in order."""

    names: list[str]
    numbers: list[int]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def list_images(root: Path, *, hidden: bool = False) -> Listing:
    """The images under `root`/CLASS/; `hidden`: also those in hidden folders, see `is_hidden`. Raises InvalidInputError
    where there are none, or none in some class, and for a link that leads back into a folder that it lies in."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidInputError(
            f"data folder: {root} is no folder with a folder of images a class ({error}){_beside(root)}"
        ) from error
    folders = [entry.name for entry in entries if entry.is_dir()]
    class_names = [name for name in folders if hidden or not is_hidden(name)]
    beside = [entry.name for entry in entries if not entry.is_dir() and is_image(entry.name)]
    if not class_names:
        have = f"it has {len(beside):,} images and no folder; " if beside else ""
        have = f"its folders are hidden ({listed(folders)}); " if folders else have
        raise InvalidInputError(
            f"data folder: {root} is no folder with a folder of images a class; {have}move its images into CLASS/, "
            "or name their classes by --data-set labels=FILE"
        )
    names, numbers, others = [], [], Counter[str]()
    by_class: dict[str, Counter[str]] = {}
    walk = _Walk(root, hidden=hidden)
    walk.left_out += [name for name in folders if name not in class_names]
    for number, class_name in enumerate(class_names):
        by_class[class_name] = Counter()
        for name in walk.files(class_name):
            if is_image(name):
                names.append(name)
                numbers.append(number)
            elif (base := _base(name)) not in DROPPINGS:
                suffix = f"{BESIDE}*" if base.startswith(BESIDE) else os.path.splitext(base)[1].lower()
                by_class[class_name][suffix or base] += 1
        others += by_class[class_name]
    _require_images(root, class_names, numbers, by_class)
    _require_classes(root, class_names, names)
    return Listing(names, numbers, tuple(class_names), tuple(_notes(others, beside, walk)))


def _beside(root: Path) -> str:
    """The folders that lie where a missing one was looked for."""
    try:
        names = sorted(entry.name for entry in os.scandir(root.parent) if entry.is_dir() and not is_hidden(entry.name))
    except OSError:
        return ""
    return f"; {root.parent} has {listed(names)}: folder:PATH with split=NAME is PATH/NAME" if names else ""


def list_flat(root: Path) -> list[str]:
    """The sorted names of the images that lie in `root` itself. Raises InvalidInputError where there are none."""
    try:
        names = sorted(entry.name for entry in os.scandir(root) if is_image(entry.name) and not entry.is_dir())
    except OSError as error:
        raise InvalidInputError(f"data folder: {root} is no folder of images ({error}){_beside(root)}") from error
    if not names:
        raise InvalidInputError(
            f"data folder: {root} has no images of its own, whose classes labels=FILE could give; images end in "
            f"{', '.join(SUFFIXES)}; leave labels out where each class has a folder"
        )
    return names


def is_image(name: str) -> bool:
    """True for a file that is taken, by its name; one that macOS leaves beside a picture, ._NAME, is none."""
    return name.lower().endswith(SUFFIXES) and not _base(name).startswith(BESIDE)


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def is_hidden(name: str) -> bool:
    """True for a folder that notebooks, file managers or archives make beside those of their user."""
    return name.startswith(".") or name in TOOLS


class _Walk:
    """The walk through the folders of classes: links are followed, and folders met before are known again."""

    def __init__(self, root: Path, *, hidden: bool) -> None:
        self.root, self.hidden = root, hidden
        self.left_out: list[str] = []
        self.met_again: list[str] = []
        self._places: dict[tuple[int, int], str] = {}

    def files(self, class_name: str) -> Iterator[str]:
        """All files of a class, in any depth, as paths in `root`."""
        root_place = _place_of(str(self.root))
        top = os.path.join(self.root, class_name)
        found = []
        for folder, folders, files in os.walk(top, followlinks=True):
            prefix = class_name + folder[len(top) :]
            place = _place_of(folder)
            former = "" if place == root_place else self._places.setdefault(place, prefix)
            if place == root_place or (former != prefix and f"{prefix}/".startswith(f"{former}/")):
                raise InvalidInputError(
                    f"data folder: {prefix} in {self.root} leads back into {former or 'that folder itself'}, in which "
                    "it lies: its images would be met again and again; remove that link"
                )
            if former != prefix:
                self.met_again.append(f"{prefix} is {former}")
            if not self.hidden:
                self.left_out += [f"{prefix}/{name}" for name in folders if is_hidden(name)]
                folders[:] = [name for name in folders if not is_hidden(name)]
            found.append((folder, prefix, files))
        for _, prefix, files in sorted(found):
            yield from (f"{prefix}/{file}" for file in sorted(files))


def _place_of(folder: str) -> tuple[int, int]:
    """Device and inode of a folder: equal for two ways to one folder."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino or hash(folder)  # some file systems number no files


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


def _notes(others: Counter[str], beside: Sequence[str], walk: _Walk) -> Iterator[str]:
    if others:
        verb = "file is no picture by its name" if others.total() == 1 else "files are no pictures by their names"
        yield f"{others.total():,} {verb} ({_by_suffix(others)})"
    if beside:
        yield f"{len(beside):,} pictures lie beside the folders of classes and are left out: {listed(beside)}"
    if walk.left_out:
        yield f"hidden folders are left out: {listed(walk.left_out)}; --data-set hidden=true takes them"
    if walk.met_again:
        yield f"{len(walk.met_again):,} folders are met again by a link, with their images: {listed(walk.met_again)}"


def _by_suffix(counts: Counter[str]) -> str:
    return listed([f"{suffix} {count:,}" for suffix, count in counts.most_common()])
