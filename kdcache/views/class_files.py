"""Files that name classes, and labels as sources have them: numbers, words, or none.

A word is the name of its class, or its synset: `class_names=FILE` lists a class a line, as ImageNet's
LOC_synset_mapping.txt does, or is the devkit's meta.mat, which alone tells the order of the devkit's numbers.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.errors import InvalidInputError
from kdcache.views.label_numbers import NONE, Labels, class_number, listed, shown_label

SYNSET = re.compile(r"(n\d{8})\s*(.*)")
PREDICTION = re.compile(r"(n\d{8})\s.*")  # of Kaggle's LOC_val_solution.csv: a synset and boxes
DEVKIT = (
    "the devkit's ground truth counts from 1 in an order of its own: give its meta.mat as class_names=FILE, or a file "
    "of labels that counts from 0"
)


@dataclass(frozen=True)
class ClassNames:
    """Names of classes in order, and the class `numbers` of all words that may stand for one."""

    names: tuple[str, ...]
    numbers: Mapping[str, int]
    source: str = "the data set"


def named_classes(names: Sequence[str]) -> ClassNames:
    """Classes that a data set itself names."""
    return ClassNames(tuple(names), {name: number for number, name in enumerate(names)})


def read_class_names(file: str) -> ClassNames | None:
    """The classes of a file, None where none is given. Raises InvalidInputError for one that cannot be read, is empty
    or names a class twice."""
    if not file:
        return None
    path = Path(file).expanduser()
    if path.suffix == ".mat":
        return _of_devkit(path)
    lines = [line.strip() for line in _text(path, "class_names").splitlines() if line.strip()]
    matches = [SYNSET.fullmatch(line) for line in lines]
    synsets = [match[1] for match in matches if match]
    if len(synsets) == len(lines):
        names = [_with_word(match[1], match[2]) for match in matches if match]
    else:
        names, synsets = lines, []
    words = synsets or names
    if twice := [word for word, count in Counter(words).items() if count > 1]:
        raise InvalidInputError(f"class_names: {path} has {len(twice)} classes twice: {listed(twice)}; list each once")
    numbers = {
        word: number for group in (map(str, range(len(names))), names, synsets) for number, word in enumerate(group)
    }
    return ClassNames(tuple(names), numbers, path.name)


def _with_word(synset: str, words: str) -> str:
    """A synset and the first of its names, by both of which it is known."""
    return f"{synset} {words.split(',')[0].strip()}".strip()


def _of_devkit(path: Path) -> ClassNames:
    """The classes of ImageNet's meta.mat, sorted by synset as folders of them are. Raises InvalidInputError."""
    import scipy.io

    load: Any = scipy.io.loadmat
    try:
        table = load(path, squeeze_me=True)["synsets"]
        rows = [
            (str(row["WNID"]), str(row["words"]), int(row["ILSVRC2012_ID"])) for row in table if not row["num_children"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"class_names: {path} is no meta.mat of ImageNet's devkit ({error})") from error
    rows.sort()
    numbers = {str(devkit_id): number for number, (_, _, devkit_id) in enumerate(rows)}
    numbers |= {synset: number for number, (synset, _, _) in enumerate(rows)}
    return ClassNames(tuple(_with_word(synset, words) for synset, words, _ in rows), numbers, path.name)


def _text(path: Path, argument: str) -> str:
    """The text of a file that is not blank. Raises InvalidInputError."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"{argument}: {path} cannot be read ({error}); give a text file, a line each"
        ) from error
    if not text.strip():
        raise InvalidInputError(f"{argument}: {path} has no line")
    return text


def _label_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and fields of each row of a file of labels: those of a .csv, or else the first word of a line and
    its rest. Raises InvalidInputError."""
    text = _text(path, "labels")
    if path.suffix.lower() == ".csv":
        reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        try:
            rows = [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise InvalidInputError(f"labels: {path}, line {reader.line_num}, is no row of a .csv ({error})") from error
    else:
        rows = [(number, line.split(None, 1)) for number, line in enumerate(text.splitlines(), start=1)]
    return [(number, [field.strip() for field in row]) for number, row in rows if any(map(str.strip, row))]


def read_labels(file: str, names: Sequence[str]) -> list[str]:
    """The label of each image file from `labels=FILE`: a word a line in the order of these sorted names, or lines of an
    image and its label, or a .csv whose first two columns these are. Raises InvalidInputError, also for an image with
    two labels."""
    path = Path(file).expanduser()
    rows = _label_rows(path)
    known = _labels_of_images(path, rows, names)
    if not known and all(len(row) == 1 for _, row in rows):
        if len(rows) != len(names):
            raise InvalidInputError(
                f"labels: {path} has {len(rows):,} lines for {len(names):,} images; give one a line, in the order of "
                "their sorted names, or lines of an image and its label"
            )
        return [row[0] for _, row in rows]
    if missing := [name for name in names if name not in known]:
        raise InvalidInputError(
            f"labels: {path} has no label for {len(missing):,} of {len(names):,} images ({listed(missing)}); give a "
            "line IMAGE LABEL for each, or IMAGE,LABEL in a .csv"
        )
    return [known[name] for name in names]


def _labels_of_images(path: Path, rows: Sequence[tuple[int, list[str]]], names: Sequence[str]) -> dict[str, str]:
    """The labels that rows of an image and its label give to these images, which they name with or without folders and
    suffix. Raises InvalidInputError for two labels of one image."""
    images = {**{Path(name).stem: name for name in names}, **{name: name for name in names}}
    lines: dict[str, int] = {}
    labels: dict[str, str] = {}
    for number, row in rows:
        file = Path(row[0])
        image = images.get(file.name, images.get(file.stem, ""))
        if not image or len(row) == 1 or not row[1]:
            continue
        match = PREDICTION.fullmatch(row[1])
        label = match[1] if match else row[1]
        if labels.setdefault(image, label) != label:
            raise InvalidInputError(
                f"labels: {path} has two labels for {image}: {labels[image]!r} in line {lines[image]} and {label!r} in "
                f"line {number}; leave one"
            )
        lines.setdefault(image, number)
    return labels


def class_labels(
    values: Sequence[Any], ids: Sequence[str], classes: ClassNames | None, noun: str
) -> tuple[Labels, tuple[str, ...]]:
    """Labels [N] i32, -1 for none, and names of classes, from the values that a source has for its samples.

    Words are classes by name, sorted where `classes` are not known. Numbers count from 0. Raises InvalidInputError,
    which begins with `noun` and names the sample.
    """
    words = [value for value in values if isinstance(value, str)]
    is_text = len(words) > 0 and not all(word.lstrip("-").isdigit() for word in set(words))
    if is_text and classes is None:
        classes = named_classes(sorted(set(words)))
    labels = np.full(len(values), NONE, np.int32)
    for index, value in enumerate(values):
        try:
            labels[index] = _label(value, classes)
        except ValueError as error:
            raise InvalidInputError(
                f"{noun}: sample {index} ({ids[index]}) has label {shown_label(value)}: {error}"
            ) from error
    used = np.unique(labels[labels >= 0])
    if words and classes is None and len(used) > 1 and used[0] == 1 and len(used) == used[-1]:
        raise InvalidInputError(f"{noun}: labels are numbers from 1 to {used[-1]}; {DEVKIT}")
    return labels, () if classes is None else classes.names


def _label(value: Any, classes: ClassNames | None) -> int:
    """A label as a number. Raises ValueError, which says what is wrong."""
    if isinstance(value, str) and value != str(NONE) and classes is not None:
        if value not in classes.numbers:
            hint = f": {DEVKIT}" if value == str(len(classes.names)) else f", such as {listed(classes.names, most=3)}"
            raise ValueError(f"{classes.source} names {len(classes.names):,} classes{hint}, and it is none of them")
        return classes.numbers[value]
    number = class_number(int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value)
    if classes is not None and number >= len(classes.names):
        raise ValueError(
            f"{classes.source} names {len(classes.names):,} classes, 0 to {len(classes.names) - 1}: labels count from 0"
        )
    return number
