"""The manifest: identity, which must match; provenance, which is reported; and the card, which people write."""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    ConfigDict,
    FailFast,
    Field,
    Strict,
    model_validator,
)

from kdcache.base.canonical import parse_json, sha256_hex
from kdcache.base.limits import (
    CLASSES_MAX,
    HEAD_BYTES_MAX,
    MANIFEST_LIMIT,
    ROW_BYTES_MAX,
    ROWS_MAX,
    SEQUENCE_MAX,
    SUBCLASSES_MAX,
)
from kdcache.base.records import FORMAT, Record, shorten
from kdcache.errors import FormatError
from kdcache.labels.encoding import LabelSpace
from kdcache.labels.encodings import AnyEncoding
from kdcache.store.plan import ViewPlan
from kdcache.store.provenance import Provenance as Provenance

BLOCK_MIN = 64  # rows: one mixing group
FILES = "files:"  # before a sha256 in place of that of weights, which nobody tells: answers were imported from files


class DatasetIdentity(Record):
    """The data set: its rows, class names, and digests (sha256, hex) over the ordered sample ids, the labels (i32) and
    the contents of some samples. `sequence` consecutive rows are the tokens of one text; 1 for pictures. `tokenizer` is
    the sha256 of the file that made the tokens, where that is known."""

    LATER: ClassVar[tuple[str, ...]] = ("sequence", "tokenizer")

    rows: int = Field(ge=1, le=ROWS_MAX)
    ids: str
    labels: str
    probes: str
    class_names: Annotated[tuple[str, ...], FailFast()] = ()
    sequence: int = Field(default=1, ge=1, le=SEQUENCE_MAX)
    tokenizer: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    @model_validator(mode="after")
    def _check_sequence(self) -> Self:
        if self.sequence & (self.sequence - 1):
            raise ValueError(f"a sequence of {self.sequence} rows divides no block; choose a power of two")
        if self.rows % self.sequence:
            raise ValueError(f"{self.rows} rows are not whole sequences of {self.sequence}; leave the rest out")
        return self


class OrderIdentity(Record):
    """The order, which maps positions to dataset indices. `sha256` is over the order array, little-endian."""

    kind: Literal["shuffled", "given"]
    seed: int = 0
    sha256: str


class TeacherIdentity(Record):
    """The teacher: the network that answered, and its preprocessing.

    `weights` is a sha256 over names, shapes and values, or `FILES` and one over the files that answers were imported
    from. `text` is one over the network's structure and a user's own sources, since networks of equal weights may have
    different forward functions. `class_map` has for each class of the network that of the data, or -1; empty where they
    are the same. `classes` are the data's, and `answers` is what the network gave: the store holds logits of it.
    `subclasses` S is above 1 where the teacher answers S logits for each class of the data, those of class c at c S to
    c S + S - 1: `classes` then counts all of them.
    """

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    text: str = ""
    weights: str
    classes: int = Field(ge=2, le=CLASSES_MAX)
    mode: Literal["eval"] = "eval"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    mean: Annotated[tuple[float, ...], FailFast()] = ()
    std: Annotated[tuple[float, ...], FailFast()] = ()
    masked_classes: Annotated[tuple[int, ...], FailFast()] = ()
    class_map: Annotated[tuple[Annotated[int, Strict()], ...], FailFast()] = ()
    answers: Literal["logits", "probs"] = "logits"
    subclasses: int = Field(default=1, ge=1, le=SUBCLASSES_MAX, strict=True)

    LATER: ClassVar[tuple[str, ...]] = ("class_map", "answers", "subclasses")

    def weights_text(self, digits: int = 64) -> str:
        """The weights in words, by so many digits of their sha256."""
        if self.weights.startswith(FILES):
            return f"unknown; answers imported from files of sha256 {self.weights.removeprefix(FILES)[:digits]}"
        return f"sha256 {self.weights[:digits]}"

    @property
    def label_classes(self) -> int:
        """The number of classes that hard labels can name."""
        return self.classes // self.subclasses

    @model_validator(mode="after")
    def _check_class_map(self) -> Self:
        """Raises ValueError unless each class of the data is mapped to at most once, and masked where it never is."""
        if not self.class_map:
            return self
        reached = [label for label in self.class_map if label != -1]
        if wrong := [label for label in reached if not 0 <= label < self.classes]:
            raise ValueError(f"class map holds {shorten(wrong[0])}, not -1 or a class below {self.classes}")
        if twice := [label for label, following in pairwise(sorted(reached)) if label == following]:
            raise ValueError(f"class map holds class {twice[0]} twice; a class of the data has one of the network")
        if missing := set(range(self.classes)) - set(reached) - set(self.masked_classes):
            raise ValueError(f"class map leaves out class {min(missing)}, which is not masked; mask it, or map to it")
        return self

    @model_validator(mode="after")
    def _check_subclasses(self) -> Self:
        if self.subclasses == 1:
            return self
        if self.classes % self.subclasses or self.label_classes < 2:
            raise ValueError(f"{self.classes} logits are not of two classes or more with {self.subclasses} subclasses")
        if self.class_map or self.masked_classes:
            raise ValueError(f"{self.subclasses} subclasses go with no class map and no masked classes")
        return self

    @model_validator(mode="after")
    def _check_masked_classes(self) -> Self:
        ids = (-1, *self.masked_classes, self.classes)
        if any(upper <= lower for lower, upper in pairwise(ids)):
            text = shorten(self.masked_classes)
            raise ValueError(f"masked classes {text} are not distinct, ascending ids below {self.classes}")
        return self


class Identity(Record):
    """An identity holds all that must be equal for two passes to belong to one store. Seals hold the sha256 of its
    canonical JSON.

    Attributes:
        format: The number of the store format.
        dataset: Rows and class names of the data set, with digests of its ids, labels and contents.
        order: The order that maps positions to dataset indices.
        plan: The view plan.
        teacher: The network that answered, its weights and its preprocessing.
        encoding: The form in which the answers are kept.
        parents: Content ids of the stores that this teacher was distilled from.

    Examples:
        >>> store.identity.dataset.rows, store.identity.teacher.name
        (300, 'kdcache.networks:convnet')
    """

    format: Literal[1] = 1
    dataset: DatasetIdentity
    order: OrderIdentity
    plan: ViewPlan = Field(alias="views")
    teacher: TeacherIdentity
    encoding: AnyEncoding
    parents: Annotated[tuple[str, ...], FailFast()] = ()

    @property
    def digest(self) -> str:
        """The sha256 of the canonical JSON, as hex digits."""
        return sha256_hex(self.to_bytes())

    @property
    def space(self) -> LabelSpace:
        """The classes and hard labels that its encoding works with."""
        labels = 1 if self.plan.mix == "none" else 2
        return LabelSpace(self.teacher.classes, self.teacher.masked_classes, labels, self.teacher.subclasses)

    @property
    def kept(self) -> int:
        """The number of logits that a row keeps."""
        return self.encoding.kept(self.space)

    @model_validator(mode="after")
    def _check_encoding(self) -> Self:
        self.encoding.require_fit(self.space)
        if self.teacher.subclasses > 1 and not self.encoding.COMPLETE:
            raise ValueError(f"{self.teacher.subclasses} subclasses need all logits, not {self.encoding.logits_kept}")
        if self.dataset.sequence > 1 and self.plan.mix != "none":
            raise ValueError(f"sequences of {self.dataset.sequence} tokens are not mixed by {self.plan.mix}; use none")
        return self

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        """Raises ValueError for wide rows and for a large head: a chunk has 64 rows or more, and a whole sequence, and
        is decoded whole, as is the head."""
        encoding, classes = self.encoding, self.teacher.classes
        allowed = ROW_BYTES_MAX * BLOCK_MIN // max(BLOCK_MIN, self.dataset.sequence)
        sizes = {name: array.row_bytes for name, array in (encoding.arrays(self.space) | encoding.outputs).items()}
        if (widest := sizes[name := max(sizes, key=sizes.__getitem__)]) > allowed:
            taps = {encoding.tap_array(tap.name): f"{name} is {tap.name}" for tap in encoding.taps}
            smaller = f"keep a smaller output, a layer pooled by --keep tap:LAYER@HxW; {taps.get(name, name)}"
            advice = smaller if name in encoding.outputs else f"keep fewer classes ({name})"
            raise ValueError(f"a row takes {widest} bytes in one array, allowed are {allowed}; {advice}")
        if (head := 4 * classes * encoding.head) > HEAD_BYTES_MAX:
            raise ValueError(f"the head takes {head} bytes, allowed are {HEAD_BYTES_MAX}; keep no head")
        return self


class Card(Record):
    """The card that people write about a store. It is outside every hash, and free to change and to grow."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = ""
    license: str = ""
    notes: str = ""


class Manifest(Record):
    """kdcache/manifest.json, written once."""

    identity: Identity
    provenance: Provenance


def parse_manifest(data: bytes, name: str) -> Manifest:
    """The manifest in a file's bytes. Raises FormatError, with one message for a newer format and another for a broken
    file."""
    identity = parse_json(data, name, limit=MANIFEST_LIMIT).get("identity")
    number = identity.get("format") if isinstance(identity, dict) else None
    if isinstance(number, int) and number > FORMAT:
        raise FormatError(
            f"{name} is of store format {shorten(number)}; this kdcache reads format {FORMAT}: upgrade kdcache"
        )
    return Manifest.from_bytes(data, name)
