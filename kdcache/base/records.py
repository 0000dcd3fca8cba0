"""Records: frozen models whose dict is the file format. They are compared here, and a wrong one is explained."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from kdcache.base.canonical import canonical_json, parse_json
from kdcache.base.limits import METADATA_LIMIT
from kdcache.errors import FormatError, InvalidInputError, MismatchError

FORMAT = 1  # of a store


class Record(BaseModel):
    """A frozen record. Its dict is the file format; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants", serialize_by_alias=True)

    LATER: ClassVar[tuple[str, ...]] = ()  # keys that came later: absent at their defaults, so that digests stay

    @model_serializer(mode="wrap")
    def _without_default(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        record: dict[str, Any] = serialize(self)
        for key in self.LATER:
            if getattr(self, key) == type(self).model_fields[key].default:
                record.pop(key, None)
        return record

    def to_bytes(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes, name: str, *, limit: int = METADATA_LIMIT) -> Self:
        """The record in a file's bytes. Raises FormatError, naming the file and the field."""
        record = parse_json(data, name, limit=limit)
        try:
            return cls.model_validate(record)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            field = ".".join(str(part) for part in first["loc"])[:160]
            problem = f"{first['msg'][:300]} (found {shorten(first['input'])})"
            raise FormatError(
                f"{name}: {field}: {problem}; it was not written by format {FORMAT}: fetch the store again"
            ) from error


def flatten(record: Any, prefix: str = "") -> dict[str, Any]:
    """A nested dict as one level, keys joined by dots; lists stay whole."""
    if not isinstance(record, dict) or not record:
        return {prefix: record}
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _texts(left: Any, right: Any) -> tuple[str, str]:
    """Two values as text: texts of several lines as they are, others as Python writes them."""
    if isinstance(left, str) and isinstance(right, str) and "\n" in left + right:
        return left, right
    return repr(left), repr(right)


def shorten(value: Any, limit: int = 160) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def differences(current: BaseModel, expected: BaseModel, prefix: str = "") -> list[tuple[str, str, str]]:
    """(field, current value, expected value) for every field that differs, each as text. A field is named by its
    path."""
    left, right = (flatten(record.model_dump(mode="json")) for record in (current, expected))
    return [
        (f"{prefix}{field}", *_texts(left.get(field, "nothing"), right.get(field, "nothing")))
        for field in sorted(left.keys() | right.keys())
        if left.get(field, "nothing") != right.get(field, "nothing")
    ]


def require_equal(
    current: BaseModel,
    expected: BaseModel,
    headline: str,
    advice: str,
    prefix: str = "",
    *,
    names: tuple[str, str] = ("the store", "this run"),
) -> None:
    """Raises MismatchError, naming every field that differs with both values. `names` are the records' owners."""
    problems = differences(current, expected, prefix)
    if not problems and canonical_json(current.model_dump(mode="json")) != canonical_json(
        expected.model_dump(mode="json")
    ):
        problems = [(prefix or "record", "the same values of other types", "1, 1.0 and true are different settings")]
    if problems:
        raise MismatchError(headline, problems, advice, names)


def validated(model: type[BaseModel], noun: str, /, **fields: Any) -> Any:
    """A record made of a user's values. Raises InvalidInputError, naming field, value and what is allowed.

    `noun` names the record in the message.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        raise InvalidInputError(f"{noun}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """A pydantic error as text: for each field its name, the problem and the value."""
    names = [".".join(map(str, item["loc"])) for item in error.errors() if item["type"] == "missing"]
    lines = [f"{', '.join(names)} must be given"] if names else []
    for item in error.errors():
        if item["type"] != "missing":
            field, problem = ".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")
            lines.append(f"{field or 'settings'}: {problem} (given {shorten(item['input'])})")
    return "; ".join(lines)
