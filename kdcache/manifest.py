"""The manifest: identity (what must match), provenance (what is reported) and card (what people write)."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from kdcache.canonical import canonical_json, parse_json, sha256_hex
from kdcache.errors import FormatError, InvalidInputError, MismatchError
from kdcache.limits import CLASSES_MAX, HEAD_BYTES_MAX, MANIFEST_LIMIT, METADATA_LIMIT, ROW_BYTES_MAX, ROWS_MAX
from kdcache.plan import ViewPlan

FORMAT = 1


class Record(BaseModel):
    """A frozen record whose dict is what the store holds; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    def to_bytes(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes, name: str, *, limit: int = METADATA_LIMIT) -> Self:
        """Raises FormatError, naming the file and the field."""
        record = parse_json(data, name, limit=limit)
        try:
            return cls.model_validate(record)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            field = ".".join(str(part) for part in first["loc"])[:160]
            found = f"{first['msg'][:300]} (found {_shorten(first['input'])})"
            raise FormatError(
                f"{name}: {field}: {found}; it was not written by format {FORMAT}: fetch the store again"
            ) from error


class DatasetIdentity(Record):
    """Digests (sha256, hex) over the ordered sample ids, the labels (i32) and the contents of some samples."""

    rows: int = Field(ge=1, le=ROWS_MAX)
    ids: str
    labels: str
    probes: str
    class_names: Annotated[tuple[str, ...], FailFast()] = ()


class OrderIdentity(Record):
    """How positions map to dataset indices; `sha256` is over the order array, little-endian."""

    kind: Literal["shuffled", "given"]
    seed: int = 0
    sha256: str


class TeacherIdentity(Record):
    """Which network answered, and how it was fed. `weights` is a sha256 over names, shapes and values; `text` one over
    the network's structure and a user's own sources, since equal weights may meet another forward."""

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

    @model_validator(mode="after")
    def _masked_are_classes(self) -> Self:
        bounded = (-1, *self.masked_classes, self.classes)
        if any(following <= before for before, following in pairwise(bounded)):
            shown = _shorten(self.masked_classes)
            raise ValueError(f"masked classes {shown} are not distinct, ascending ids below {self.classes}")
        return self


class Encoding(Record):
    """How soft labels become arrays. `k` counts the kept classes (topk); `features` and `head` are the
    width D of the kept features and of the kept classifier, or 0; `class_means`: each segment holds the mean tail logit
    of every class (topk); `packing`: gaps and tail as they are, or gaps rank by rank and the tail as residuals, see
    `kdcache.packing` (topk)."""

    name: Literal["topk", "full"]
    k: int | None = Field(default=None, ge=1)
    quantisation: Literal["default", "high"] = "default"
    features: int = Field(default=0, ge=0)
    head: int = Field(default=0, ge=0)
    class_means: bool = False
    packing: Literal["plain", "residuals"] = "plain"

    @model_serializer(mode="wrap")
    def _without_default(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that came later are left out at their defaults, so that older stores keep their identity digests."""
        record: dict[str, Any] = serialize(self)
        for name in ("class_means", "packing"):
            if record[name] == type(self).model_fields[name].default:
                del record[name]
        return record

    @model_validator(mode="after")
    def _k_belongs_to_topk(self) -> Self:
        if (self.name == "topk") != (self.k is not None):
            raise ValueError(f"k is {self.k} in the {self.name} encoding; topk needs k, full has none")
        if self.class_means and self.name == "full":
            raise ValueError("class_means is true in the full encoding, which has no tail")
        if self.packing != "plain" and self.name == "full":
            raise ValueError(f"packing is {self.packing} in the full encoding, which has no gaps and no tail")
        return self


def described(encoding: Encoding) -> str:
    """An encoding for people: `top 20, default quantisation, residuals`."""
    kept = ["all logits"]
    if encoding.k is not None:
        kept = [f"top {encoding.k}", f"{encoding.quantisation} quantisation", encoding.packing]
    return ", ".join([*kept, *(name for name in ("features", "head") if getattr(encoding, name))])


class Identity(Record):
    """All that must be equal for two passes to belong to one store. Its canonical JSON is what seals hash."""

    format: Literal[1] = 1
    dataset: DatasetIdentity
    order: OrderIdentity
    views: ViewPlan
    teacher: TeacherIdentity
    encoding: Encoding
    parents: Annotated[tuple[str, ...], FailFast()] = ()

    @property
    def digest(self) -> str:
        return sha256_hex(self.to_bytes())

    @property
    def tail_classes(self) -> int:
        """How many classes the tail of a top-k store stands for."""
        return self.teacher.classes - len(self.teacher.masked_classes) - (self.encoding.k or 0)

    @model_validator(mode="after")
    def _k_fits(self) -> Self:
        usable = self.teacher.classes - len(self.teacher.masked_classes)
        if self.encoding.k is not None and self.encoding.k > usable:
            raise ValueError(f"k is {self.encoding.k}, the teacher has {usable} classes that are not masked")
        return self

    @model_validator(mode="after")
    def _rows_are_small(self) -> Self:
        """A chunk has 64 rows or more and is decoded whole, as is the head."""
        encoding, classes = self.encoding, self.teacher.classes
        widest = max(2 * classes if encoding.k is None else 4 * encoding.k, 2 * encoding.features)
        if widest > ROW_BYTES_MAX:
            raise ValueError(
                f"a row takes {widest} bytes in one array, allowed are {ROW_BYTES_MAX}; keep fewer classes"
            )
        if (head := 4 * classes * encoding.head) > HEAD_BYTES_MAX:
            raise ValueError(f"the head takes {head} bytes, allowed are {HEAD_BYTES_MAX}; keep no head")
        return self


class Provenance(Record):
    """Where a pass ran: reported, never refused, and free of times, hosts and paths. Later versions may add to it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    versions: dict[str, str] = Field(default_factory=dict)
    device: str = "cpu"
    cpu_capability: str = ""
    decoder: str = ""
    data: str = ""


class Card(Record):
    """What people write about a store; outside every hash, and free to change and to grow."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = ""
    license: str = ""
    notes: str = ""


class Manifest(Record):
    """kdcache/manifest.json, written once."""

    identity: Identity
    provenance: Provenance


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Raises FormatError; a newer format is told from a broken file."""
    identity = parse_json(data, name, limit=MANIFEST_LIMIT).get("identity")
    number = identity.get("format") if isinstance(identity, dict) else None
    if isinstance(number, int) and number > FORMAT:
        raise FormatError(
            f"{name} is of store format {_shorten(number)}; this kdcache reads format {FORMAT}: upgrade kdcache"
        )
    return Manifest.from_bytes(data, name)


def flatten(record: Any, prefix: str = "") -> dict[str, Any]:
    """A nested dict as one level, keys joined by dots; lists stay whole."""
    if not isinstance(record, dict) or not record:
        return {prefix: record}
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _shorten(value: Any, limit: int = 160) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def differences(stored: BaseModel, given: BaseModel, prefix: str = "") -> list[tuple[str, str, str]]:
    """(field, stored, given) for every field that differs, fields named by their path."""
    left, right = (flatten(record.model_dump(mode="json")) for record in (stored, given))
    return [
        (f"{prefix}{field}", _shorten(left.get(field, "nothing")), _shorten(right.get(field, "nothing")))
        for field in sorted(left.keys() | right.keys())
        if left.get(field, "nothing") != right.get(field, "nothing")
    ]


def require_equal(
    stored: BaseModel,
    given: BaseModel,
    what: str,
    advice: str,
    prefix: str = "",
    *,
    names: tuple[str, str] = ("the store", "this run"),
) -> None:
    """Raises MismatchError naming every field that differs, with both values."""
    found = differences(stored, given, prefix)
    if not found and canonical_json(stored.model_dump(mode="json")) != canonical_json(given.model_dump(mode="json")):
        found = [(prefix or "record", "the same values of other types", "1, 1.0 and true are different settings")]
    if found:
        raise MismatchError(what, found, advice, names)


def validated(model: type[BaseModel], what: str, /, **fields: Any) -> Any:
    """Build a record from a user's values; raises InvalidInputError with the field, the value and what is allowed."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise InvalidInputError(f"{what}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """A pydantic error as one line a field: its name, what is wrong, and the value that was given."""
    missing = [".".join(str(part) for part in item["loc"]) for item in error.errors() if item["type"] == "missing"]
    lines = [f"{', '.join(missing)} must be given"] if missing else []
    lines += [
        f"{'.'.join(str(part) for part in item['loc']) or 'settings'}: {item['msg']} (given {_shorten(item['input'])})"
        for item in error.errors()
        if item["type"] != "missing"
    ]
    return "; ".join(lines)
