"""Pairs of taps: which layer of the student an objective holds against which kept output of each store.

Settings name them: `student_tap=layer3`, or several joined by `+`; `teacher_tap` likewise, of each store in turn where
commas stand between. Left out, they are the last stage and the last kept map, or the pooled features, as the objective
has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from kdcache.base.tap_names import FEATURES, TapName, placed_shape
from kdcache.errors import InvalidInputError, MissingBlockError
from kdcache.objectives.targets import normalised_weights

Shape = tuple[int, ...]
NAMED = 60  # layers that a message lists


@dataclass(frozen=True)
class Head:
    """A teacher's classifier: weight [C, D] and bias [C], f32."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class TeacherSizes:
    """The sizes of a store are the shapes of its taps, and its classifier.

    Attributes:
        name: The name of the store, for messages.
        taps: The shape of one row by name, `features` among them where they are kept.
        head: The classifier, where it is kept.
        masked: Ids of the classes that count as absent.

    Examples:
        >>> sizes.teachers[0].last_map
        'layer4'
    """

    name: str
    taps: Mapping[str, Shape]
    head: Head | None = None
    masked: tuple[int, ...] = ()

    @property
    def last_map(self) -> str:
        """The last tap that has places, else the last tap; empty without any."""
        names = [name for name in self.taps if name != FEATURES]
        placed = [name for name in names if (size := TapName.parse(name).size) is None or size != (1, 1)]
        return (placed or names or [""])[-1]


@dataclass(frozen=True)
class Sizes:
    """Sizes are the shapes that student and stores give: with these a term makes its projections.

    Attributes:
        student: The shape of one row of each layer, by name, `features` among them.
        last: The layer that ends the student's last stage.
        teachers: Those of each store.
        weights: One a store, equal by default.
        classes: The number of classes of the student's answer.
        rows: The number of rows of a view of the stores; 0 where nobody knows.
        shares: The weights, which sum to 1.

    Examples:
        >>> sizes.student_shape("layer4"), sizes.shares
        ((2, 3, 3), (1.0,))
    """

    student: Mapping[str, Shape]
    last: str
    teachers: tuple[TeacherSizes, ...]
    weights: tuple[float, ...] = ()
    classes: int = 0
    rows: int = 0
    shares: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", normalised_weights(self.weights, len(self.teachers)))

    def student_shape(self, name: str) -> Shape:
        """The shape of one row of a student's tap, pooled where the name says so. Raises InvalidInputError for a layer
        that the student lacks, listing its layers, and for one that cannot be pooled so."""
        tap = TapName.parse(name)
        if tap.layer not in self.student:
            others = f" and {len(self.student) - NAMED} others" if len(self.student) > NAMED else ""
            raise InvalidInputError(
                f"the student has no layer {tap.layer}; its layers are "
                f"{', '.join(list(self.student)[:NAMED])}{others} (kdcache taps lists them with their shapes)"
            )
        shape = self.student[tap.layer]
        if tap.size is None:
            return shape
        channels, height, width = placed_shape(shape)
        if len(shape) == 2:  # tokens [T, D] are pooled as 1 x t
            height, width = 1, height
        if len(shape) not in (2, 3) or tap.size[0] > height or tap.size[1] > width:
            raise InvalidInputError(
                f"the student's {tap.layer} {list(shape)} cannot be pooled to {tap.size[0]} x {tap.size[1]}; name it "
                f"as {tap.layer}, or choose a size within its own"
            )
        return (channels, *tap.size) if len(shape) == 3 else (tap.size[1], channels)


@dataclass(frozen=True)
class TapPair:
    """A layer of the student and one of a store, with the shapes of one row."""

    student: str
    teacher: str
    student_shape: Shape
    teacher_shape: Shape

    def __str__(self) -> str:
        return f"the student's {self.student} {list(self.student_shape)} and the store's {self.teacher} " + str(
            list(self.teacher_shape)
        )


def tap_pairs(
    sizes: Sizes, student_tap: str, teacher_tap: str, *, default: Literal["last map", "features"], name: str
) -> tuple[tuple[TapPair, ...], ...]:
    """Pairs of taps are layers of the student beside kept outputs of each store: a tuple of layers for each store.

    Args:
        sizes: The shapes that student and stores give.
        student_tap: A layer of the student, or several joined by `+`; by default as `default` says.
        teacher_tap: A tap of the stores, likewise; of each store in turn where commas stand between.
        default: "last map" or "features".
        name: The objective's name, for messages.

    Raises InvalidInputError for a layer that the student lacks and for other numbers of layers, MissingBlockError for a
    tap that a store lacks, naming extract's flag.

    Examples:
        >>> from kdcache.objectives.tap_pairs import tap_pairs
        >>> tap_pairs(sizes, "", "", default="last map", name="mine")[0][0].teacher_shape
        (4, 3, 3)
    """
    student_names = _names(student_tap or (FEATURES if default == "features" else sizes.last))
    if not student_names:
        raise InvalidInputError(f"objective {name} needs a layer of the student: name one with --set student_tap=LAYER")
    lists = [part.strip() for part in teacher_tap.split(",")] if teacher_tap else [""]
    if len(lists) not in (1, len(sizes.teachers)):
        raise InvalidInputError(
            f"teacher_tap of objective {name} names the taps of {len(lists)} stores, there are {len(sizes.teachers)}; "
            "give one for all, or one for each with commas between"
        )
    lists = lists * len(sizes.teachers) if len(lists) == 1 else lists
    pairs = []
    for teacher, text in zip(sizes.teachers, lists, strict=True):
        names = _names(text or (FEATURES if default == "features" else teacher.last_map or FEATURES))
        if len(names) != len(student_names):
            raise InvalidInputError(
                f"objective {name} has {len(student_names)} layers of the student ({', '.join(student_names)}) and "
                f"{len(names)} of {teacher.name} ({', '.join(names)}); give as many, joined by +"
            )
        for tap in names:
            if tap not in teacher.taps:
                kept = ", ".join(teacher.taps) or "none"
                flag = FEATURES if tap == FEATURES else f"tap:{tap}"
                raise MissingBlockError(
                    f"objective {name} needs {tap} of the teacher, and {teacher.name} keeps {kept}; extract with "
                    f"--keep {flag}, or choose a kept one with --set teacher_tap=NAME"
                )
        pairs.append(
            tuple(
                TapPair(student, tap, sizes.student_shape(student), tuple(teacher.taps[tap]))
                for student, tap in zip(student_names, names, strict=True)
            )
        )
    return tuple(pairs)


def names_of(pairs: tuple[tuple[TapPair, ...], ...]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The names of the student's taps, and those of each store, are read from pairs.

    Examples:
        >>> from kdcache.objectives.tap_pairs import names_of, tap_pairs
        >>> names_of(tap_pairs(sizes, "", "", default="features", name="mine"))
        (('features',), (('features',),))
    """
    student = tuple(dict.fromkeys(pair.student for store in pairs for pair in store))
    return student, tuple(tuple(dict.fromkeys(pair.teacher for pair in store)) for store in pairs)


def cannot_join(name: str, pair: TapPair, advice: str) -> InvalidInputError:
    """The error for shapes that no projection of an objective can join."""
    return InvalidInputError(f"objective {name} cannot join {pair}: {advice}")


def require_common_places(name: str, pairs: tuple[tuple[TapPair, ...], ...]) -> None:
    """Raises InvalidInputError for a map beside tokens: no place of the one is known to be that of the other. One that
    has a single place goes with all."""
    for pair in (pair for store in pairs for pair in store):
        shapes = (pair.student_shape, pair.teacher_shape)
        kinds = {len(shape) for shape in shapes if placed_shape(shape)[1:] != (1, 1)}
        if kinds == {2, 3}:
            advice = "places of a map and tokens have no common order; pool one of them to a single place as LAYER@1x1"
            raise cannot_join(name, pair, advice)


def head_of(name: str, teacher: TeacherSizes, pair: TapPair) -> Head:
    """The classifier of a store, whose input is the mean over places of the pair's tap. Raises MissingBlockError where
    there is none, InvalidInputError where it takes another number of features."""
    if teacher.head is None:
        raise MissingBlockError(
            f"objective {name} needs the teacher's classifier, which {teacher.name} does not hold; extract with --keep "
            "head"
        )
    features, channels = teacher.head.weight.shape[1], placed_shape(pair.teacher_shape)[0]
    if features != channels:
        advice = f"its classifier takes {features} features, the tap has {channels}; name the layer that is pooled"
        raise cannot_join(name, pair, f"{advice} before the classifier with --set teacher_tap=LAYER")
    return teacher.head


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split("+") if part.strip()]
