"""The class map of a teacher: the data's class of each of its own, from names on both sides or from a user's file.

Shape letters: N classes of the network, C classes of the data.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdcache.base.limits import CLASSES_MAX
from kdcache.errors import InvalidInputError
from kdcache.networks.class_names import Vocabulary
from kdcache.views.label_numbers import listed

ABSENT = -1
SHARED = 0.5  # of names, above which two lists speak of the same classes
_TOKEN = r"""\s*("[^"]*"|'[^']*'|[^=#"'\s][^=#]*?|)\s*"""
_LINE = re.compile(rf"{_TOKEN}(?:=(?P<equals>){_TOKEN})?(?:#.*)?")


@dataclass(frozen=True)
class ClassMap:
    """A class map: `map` [N] of the data's C `classes`, -1 where it has none; empty where both are the same. `notes`
    are for the user."""

    map: tuple[int, ...] = ()
    classes: int = 0
    notes: tuple[str, ...] = ()


def class_map_by_name(
    names: Sequence[str], known: Sequence[Vocabulary], *, classes: int, masked: Collection[int] = ()
) -> ClassMap:
    """The class map of a teacher of N `classes`, known by these vocabularies, on data of these C `names`.

    Empty where the data has no names, and where the numbers are those of the names or no name tells. Raises
    InvalidInputError where the teacher has more classes than the data, those from C on not all `masked`, or names its
    own, and the names do not match.
    """
    count = len(names)
    if not count:
        return ClassMap()
    for vocabulary in known:
        matches = [vocabulary.numbers(name) for name in names]
        numbers = [match[0] for match in matches if len(match) == 1]
        if len(set(numbers)) == count:
            return _of_numbers(numbers, names, vocabulary, classes)
    nearest = max(known, key=lambda vocabulary: _shared(names, vocabulary), default=None)
    shared = 0 if nearest is None else _shared(names, nearest)
    if nearest is not None and shared > SHARED * min(count, classes):
        raise InvalidInputError(
            f"the teacher answers {classes:,} classes, the data has {count:,}, and some have another name than in "
            f"{nearest.source}: {_unmatched(names, nearest)}; {_ways(names, nearest)}"
        )
    if classes > count and not are_equal_in_number(count, classes, masked):
        missing = f" of which {_unmatched(names, nearest)};" if nearest is not None and nearest.is_known else ""
        raise InvalidInputError(
            f"the teacher answers {classes:,} classes, the data has {count:,} ({listed(names)}), and nothing tells "
            f"which these are;{missing} {_ways(names, nearest)}"
        )
    notes = []
    if classes < count:
        notes.append(f"the data names {count:,} classes, the teacher answers {classes:,}: they are taken by number")
    elif nearest is not None and nearest.is_known:
        notes.append(f"the classes have other names in {nearest.source}: they are taken by number")
    return ClassMap(notes=tuple(notes))


def are_equal_in_number(count: int, classes: int, masked: Collection[int]) -> bool:
    """The classes of a teacher are as many as the data's `count`, those from there on not counted where `masked`."""
    return classes >= count and set(range(count, classes)) <= set(masked)


def read_class_map(
    path: str, names: Sequence[str], known: Sequence[Vocabulary], *, classes: int, labels: int
) -> ClassMap:
    """The class map that a user's file holds, in lines TEACHER = DATA.

    Each side is a number or a name; quotes are allowed around a name, # begins a comment, DATA may be -1. `labels` is
    the least C, where the data has no names. Raises InvalidInputError, naming the line, for a class that is unknown,
    ambiguous or there twice.
    """
    try:
        text = Path(path).expanduser().read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"class map {path} cannot be read: {error}") from error
    data = [Vocabulary("the data's classes", tuple(names))] if names else []
    lines: dict[int, tuple[int, int]] = {}  # teacher's class: data's class, line
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"class map {path}, line {number}"
        match = _LINE.fullmatch(line.rstrip("\r"))
        if (
            match is None
            or (match["equals"] is None and match[1])
            or (match["equals"] is not None and not (match[1] and match[3]))
        ):
            raise InvalidInputError(f"{place}: {line.strip()[:120]!r} is not TEACHER = DATA, such as 285 = cat")
        if match["equals"] is None:
            continue
        teacher_class = _number(match[1], known, classes, f"{place}: the teacher")
        data_class = (
            ABSENT
            if match[3] == str(ABSENT)
            else _number(match[3], data, len(names) or CLASSES_MAX, f"{place}: the data")
        )
        _require_new(lines, teacher_class, data_class, place)
        lines[teacher_class] = (data_class, number)
    by_data = {data_class: teacher_class for teacher_class, (data_class, _) in lines.items() if data_class != ABSENT}
    if not by_data:
        raise InvalidInputError(
            f"class map {path} maps no class; write a line TEACHER = DATA for each, such as 285 = cat"
        )
    class_map = tuple(lines.get(number, (ABSENT, 0))[0] for number in range(classes))
    count = len(names) or max(labels, 1 + max(by_data))
    missing = [number for number in range(count) if number not in by_data]
    texts = listed([names[number] if names else str(number) for number in missing])
    notes = (f"no class of the teacher is mapped to {texts}: it counts as absent there",) if missing else ()
    return ClassMap(() if class_map == tuple(range(count)) else class_map, count, notes)


def _of_numbers(numbers: Sequence[int], names: Sequence[str], vocabulary: Vocabulary, classes: int) -> ClassMap:
    """The class map by the number that each of the data's classes has among the teacher's."""
    if list(numbers) == list(range(classes)):
        return ClassMap()
    class_map = [ABSENT] * classes
    for label, number in enumerate(numbers):
        class_map[number] = label
    pairs = listed([f"{number} = {name}" for number, name in zip(numbers, names, strict=True)])
    note = f"{len(names):,} of the teacher's {classes:,} classes are the data's, by name ({vocabulary.source}): {pairs}"
    return ClassMap(tuple(class_map), len(names), (note,))


def _number(token: str, known: Sequence[Vocabulary], classes: int, owner: str) -> int:
    """The class that a token of a file names. Raises InvalidInputError where none or several do, or the number is not
    below `classes`."""
    is_quoted = token[:1] in ("'", '"')
    name = token[1:-1] if is_quoted else token
    numbers = next((numbers for vocabulary in known if (numbers := vocabulary.numbers(name))), ())
    is_number = not is_quoted and name.isascii() and name.lstrip("-").isdigit()
    if is_number and numbers and numbers != (int(name),):
        classes_text = " and ".join(map(str, numbers))
        raise InvalidInputError(
            f'{owner} has a class named {name}, number {classes_text}; write "{name}" for it, and class {name} by name'
        )
    if is_number:
        if not 0 <= int(name) < classes:
            raise InvalidInputError(f"{owner} has classes 0 to {classes - 1}, and no {name}")
        return int(name)
    if len(numbers) > 1:
        raise InvalidInputError(
            f"{owner} has several classes {name!r}: {', '.join(map(str, numbers))}; give the number"
        )
    if not numbers:
        listing = listed(known[0].names, most=12) if known else "none has a name"
        raise InvalidInputError(f"{owner} has no class {name!r} ({listing}); give a number, 0 to {classes - 1}")
    return numbers[0]


def _require_new(lines: dict[int, tuple[int, int]], teacher_class: int, data_class: int, place: str) -> None:
    if teacher_class in lines:
        first = lines[teacher_class][1]
        raise InvalidInputError(
            f"{place}: class {teacher_class} of the teacher was mapped on line {first}; map it once"
        )
    twins = [number for number, (label, _) in lines.items() if label == data_class != ABSENT]
    if twins:
        first = lines[twins[0]][1]
        raise InvalidInputError(
            f"{place}: class {data_class} of the data has class {twins[0]} of the teacher by line {first}, and "
            f"{teacher_class} here; give it one"
        )


def _shared(names: Sequence[str], vocabulary: Vocabulary) -> int:
    return sum(len(vocabulary.numbers(name)) == 1 for name in names)


def _unmatched(names: Sequence[str], vocabulary: Vocabulary) -> str:
    unknown = [name for name in names if not vocabulary.numbers(name)]
    several = [(name, vocabulary.numbers(name)) for name in names if len(vocabulary.numbers(name)) > 1]
    parts = [f"it has no {listed(unknown)}"] if unknown else []
    parts += [f"several are named {name!r}: {', '.join(map(str, numbers))}" for name, numbers in several[:3]]
    return "; ".join(parts) or f"two classes of the data have one name there ({listed(names)})"


def _ways(names: Sequence[str], vocabulary: Vocabulary | None) -> str:
    example = vocabulary.names[0] if vocabulary is not None else "0"
    return (
        f"give --class-map FILE with a line TEACHER = DATA for each, such as `{example} = {names[0]}`, or --labels "
        "none to keep all the teacher's classes and use no hard label"
    )
