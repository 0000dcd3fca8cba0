"""An encoding says how the soft labels of a store become arrays; its dict stands in the manifest.

A new encoding is one file, with a subclass of `Encoding`, and one entry in `encodings.ENCODINGS`. What differs between
encodings is asked of the object: nobody outside this room asks which one it is.

Shape letters: B any leading axes, C classes, K kept classes, L hard labels a row (1, or 2 under mixing), R rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Container
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, FailFast, Field

from kdcache.base.arrays import WIDTH
from kdcache.base.records import Record
from kdcache.base.tap_names import NAME_MAX, TAP_NAME
from kdcache.errors import MissingBlockError
from kdcache.labels.reduction import SKETCH_TEMPERATURES, Array
from kdcache.labels.soft_labels import SoftLabels, Tail
from kdcache.labels.temperatures import require_temperature

UPWARD = "what was not kept cannot be had back without the teacher: run kdcache extract"
FEATURES = "pooled penultimate features of the teacher"
TAPS_MAX = 64  # each is an array more, whose metadata stands in the segment's record


@dataclass(frozen=True)
class LabelSpace:
    """The classes that a teacher answers, and the hard labels that a row has.

    classes: all of them, each subclass counting as one. masked: ids that count as absent, ascending. labels: hard
    labels a row, 2 under mixing. subclasses: how many stand for each class that a hard label can name.
    """

    classes: int
    masked: tuple[int, ...] = ()
    labels: int = 1
    subclasses: int = 1

    @property
    def visible(self) -> int:
        """The number of classes that are not masked."""
        return self.classes - len(self.masked)


@dataclass(frozen=True)
class RowArray:
    """An array with an entry for each row: its dtype, its axes before and behind that of the positions, and what it
    holds, in words.

    by_rank: set where a chunk holds the numbers of one rank side by side. struck: the number that fills a row without
    an answer; None where such a row is not told from others. That of the first array marks the row: no answer holds it.
    """

    dtype: str
    text: str
    front: tuple[int, ...] = ()
    back: tuple[int, ...] = ()
    by_rank: bool = False
    struck: float | None = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return WIDTH[self.dtype] * prod((*self.front, *self.back))


@dataclass(frozen=True)
class SegmentArray:
    """An array that a segment has once, written with block 0: its dtype and shape, and what it holds, in words."""

    dtype: str
    text: str
    shape: tuple[int, ...]


class Tap(Record):
    """A kept layer of the teacher: its name, and the shape of one row's output, 1 to 4 axes. `@HxW` at the name's end
    says that the output was pooled adaptively to H x W: what is computed from it is approximate."""

    name: str = Field(max_length=NAME_MAX)
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=2**32)], ...], FailFast()] = Field(min_length=1, max_length=4)


def _few_taps(taps: Any) -> Any:
    """As they are: too many are refused before any is parsed."""
    if isinstance(taps, list | tuple) and len(taps) > TAPS_MAX:
        raise ValueError(f"{len(taps)} taps are listed, allowed are {TAPS_MAX}")
    return taps


def _named_taps(taps: tuple[Tap, ...]) -> tuple[Tap, ...]:
    names = [tap.name for tap in taps]
    if wrong_names := [name for name in names if not TAP_NAME.fullmatch(name)]:
        raise ValueError(
            f"the tap name {wrong_names[0]!r} is not 1 to {NAME_MAX} letters, digits, dots and underscores, "
            "with @HxW behind them where it is pooled"
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"the tap {twice[0]!r} is listed twice; name each layer once")
    return taps


@dataclass(frozen=True)
class Encoded:
    """Arrays by name, as the store holds them. `clamped` [Vs, R] is true for rows whose numbers did not fit."""

    arrays: dict[str, Array]
    clamped: Array


@dataclass(frozen=True)
class Choice:
    """The words in which people choose an encoding; None is for the encoding, or the store that stands, to choose.

    shuffled: positions are in a random order, so that the rows of block 0 are a fair sample. draws, draw_temperature:
    of the sampled encoding alone.
    """

    top_k: int | None = None
    quantisation: Literal["default", "high"] | None = None
    packing: Literal["residuals", "plain"] | None = None
    shuffled: bool = True
    draws: int | None = None
    draw_temperature: float | None = None


Contents = Literal["bytes", "values"]


class Encoding(Record, ABC):
    """An encoding: the record of the manifest, and all that is done by it.

    name: as in `ENCODINGS`. features, head: the width D of the kept features and of the kept classifier, or 0.
    contents: what the content fingerprints are taken over, None in stores without them. block_rule: which rule gives a
    segment's blocks their size, see `segment_layout`. taps: layers whose outputs are kept.
    """

    name: str
    features: int = Field(default=0, ge=0)
    head: int = Field(default=0, ge=0)
    contents: Contents | None = None
    block_rule: int = Field(default=1, ge=1, le=2, strict=True)
    taps: Annotated[tuple[Tap, ...], FailFast(), BeforeValidator(_few_taps), AfterValidator(_named_taps)] = ()

    LATER: ClassVar[tuple[str, ...]] = ("block_rule", "contents", "taps")
    COMPLETE: ClassVar[bool] = False  # every class's logit is kept, so there is no tail, and any temperature is served
    DRAWN: ClassVar[bool] = False  # rows are ids from `draw`, and serve a forward cross-entropy alone
    HOLDS_LABEL: ClassVar[bool] = True  # else `decode` reads the hard label's logit by the array `hard`

    @classmethod
    @abstractmethod
    def chosen(cls, choice: Choice, space: LabelSpace, *, like: "Encoding | None" = None) -> Self:
        """The encoding that a choice asks for, without features, head or block rule. What it leaves open is as in
        `like`, the encoding of the store that stands, or else this encoding's default. Raises InvalidInputError."""

    @classmethod
    @abstractmethod
    def narrowed(cls, source: "Encoding", choice: Choice, space: LabelSpace) -> Self:
        """The encoding to which a store in `source` is recoded, without features or head. Raises InvalidInputError for
        what cannot be had without the teacher."""

    @property
    @abstractmethod
    def logits_kept(self) -> str:
        """What is kept of the logits, in words: `top 20`, `all logits`."""

    @property
    def kinds_of_contents(self) -> tuple[Contents, ...]:
        """What content fingerprints are taken over: one kind, or none."""
        return () if self.contents is None else (self.contents,)

    @property
    def manner(self) -> tuple[str, ...]:
        """How it is kept, in words: `default quantisation`, `residuals`."""
        return ()

    @property
    def keeps_class_means(self) -> bool:
        """True where each segment holds the mean tail logit of every class, the array `class_means`."""
        return False

    @abstractmethod
    def kept(self, space: LabelSpace) -> int:
        """The number of logits that a row keeps."""

    @abstractmethod
    def require_fit(self, space: LabelSpace) -> None:
        """Raises ValueError where the classes are too few for it."""

    @abstractmethod
    def arrays(self, space: LabelSpace) -> dict[str, RowArray]:
        """The arrays of soft labels in writing order; the first is the ticket."""

    @property
    def outputs(self) -> dict[str, RowArray]:
        """The arrays of kept layer outputs in writing order: features, then `taps.<i>`, the i-th tap; all f16."""
        arrays = {"features": RowArray("float16", FEATURES, back=(self.features,))} if self.features else {}
        taps = {f"taps.{place}": tap for place, tap in enumerate(self.taps)}
        return arrays | {
            name: RowArray("float16", f"output of the teacher's layer {tap.name}", back=tap.shape)
            for name, tap in taps.items()
        }

    def tap_array(self, name: str) -> str:
        """The array that holds the tap of a name. Raises MissingBlockError, which lists the taps there are."""
        names = [tap.name for tap in self.taps]
        if name not in names:
            raise MissingBlockError(f"no tap {name!r} is kept; there are {', '.join(names) or 'none'}")
        return f"taps.{names.index(name)}"

    def tap_names(self, arrays: Container[str]) -> list[str]:
        """The names of the taps that lie in some arrays."""
        return [tap.name for tap in self.taps if self.tap_array(tap.name) in arrays]

    def segment_arrays(self, space: LabelSpace) -> dict[str, SegmentArray]:
        """The arrays that a segment has once."""
        return {}

    def scratch(self, space: LabelSpace) -> tuple[int, int]:
        """Bytes a row beyond its arrays: of the fields from `reduce`, and of `encode` at its widest in one view."""
        return 32, 0

    @abstractmethod
    def reduce(self, logits_BC: Array, labels_BL: Array, space: LabelSpace) -> dict[str, Array]:
        """The fields [B, ...] that are kept of logits, on their device; numpy or torch. `label` [B, L] is among them:
        the hard label's distance to the top logit, NaN for label -1 and a masked one."""

    def draw(self, logits_BC: Array, words_B: Array, space: LabelSpace) -> dict[str, Array]:
        """The fields that are drawn, where the encoding is `DRAWN`; on the device of the logits. `words_B`: u64, the
        key word of each row's stream "draw"."""
        return {}

    def segment_sums(self, logits_BC: Array, fields: dict[str, Array], space: LabelSpace) -> dict[str, Array]:
        """Sums over a batch of block 0, by name, from which `segment_values` makes the segment's own arrays."""
        return {}

    def segment_values(self, sums: dict[str, Array]) -> dict[str, Array]:
        """The segment's own arrays, from the f64 totals of `segment_sums`."""
        return {}

    @abstractmethod
    def encode(self, fields: dict[str, Array], space: LabelSpace) -> Encoded:
        """Arrays as the store holds them, from `reduce`'s fields (numpy, leading axes [Vs, R]). Raises
        BadLogitsError."""

    @abstractmethod
    def decode(self, arrays: dict[str, Array], space: LabelSpace) -> SoftLabels:
        """Soft labels (numpy, f32) from arrays [R, ...], positions first."""

    @abstractmethod
    def fields_of(self, soft: SoftLabels, hard_RL: Array, space: LabelSpace) -> dict[str, Array]:
        """The fields [R, ...] of `reduce`, from the soft labels of a wider encoding and hard labels [R, L]."""

    @abstractmethod
    def at_limit(self, arrays: dict[str, Array], kept: int) -> Array:
        """[R] true for rows of which one number among the first `kept` logits is the largest that there is: it may
        have been clamped."""

    @abstractmethod
    def answer_error(self, span: float) -> float:
        """The most by which a stored log-probability can differ from the answered one, for classes down to `span` nats
        below the top."""

    def require_temperature(self, temperature: float, *, tail: Tail = "uniform") -> None:
        """Raises InvalidInputError for a temperature at which its soft labels are not known. `tail` "none": the head is
        renormalised, and the tail's mass not asked for."""
        require_temperature(temperature, complete=self.COMPLETE)

    @property
    def tail_temperatures(self) -> tuple[float, ...]:
        """The temperatures at which the tail's mass is stored; none where there is no tail."""
        return () if self.COMPLETE else SKETCH_TEMPERATURES

    def require_log_probs(self, purpose: str, advice: str = "") -> None:
        """Raises InvalidInputError, naming the purpose, where its soft labels give no log-probabilities by class.
        `advice` names the other way on, beside another store."""

    def require_sketch(self, purpose: str) -> None:
        """Raises InvalidInputError, naming the purpose, where its soft labels are known at one temperature alone."""

    def prefix_settings(self) -> dict[str, Any]:
        """The settings of the top-k encoding that a prefix of its rows has. Raises InvalidInputError where they have
        none."""
        return {}

    @property
    def title(self) -> str:
        """The encoding in words for people: `top 20, default quantisation, residuals`."""
        return ", ".join([self.logits_kept, *self.manner])

    def described(self) -> str:
        """Its title, and what else is kept: `all logits, features, head`."""
        kept = [name for name in ("features", "head") if getattr(self, name)]
        return ", ".join(
            [self.title, *kept, *([f"taps {', '.join(tap.name for tap in self.taps)}"] if self.taps else [])]
        )
