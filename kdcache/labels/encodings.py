"""The encodings by name, and the field of a manifest that holds one."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainValidator, SerializeAsAny, ValidationError

from kdcache.base.records import explain
from kdcache.errors import InvalidInputError
from kdcache.labels.encoding import Choice, Encoding, LabelSpace
from kdcache.labels.full import FullEncoding
from kdcache.labels.sampled import SampledEncoding
from kdcache.labels.topk import TopKEncoding

ENCODINGS: dict[str, type[Encoding]] = {"topk": TopKEncoding, "full": FullEncoding, "sampled": SampledEncoding}
BLOCK_RULE = 2  # of new stores
CARRIED = ("features", "head", "block_rule", "contents", "taps")  # by a recoding


def encoding_class(name: str) -> type[Encoding]:
    """The encoding of a name. Raises InvalidInputError, which lists the names there are."""
    if name not in ENCODINGS:
        raise InvalidInputError(f"encoding {name!r} is unknown; choose among {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def chosen(name: str, choice: Choice, space: LabelSpace, *, like: Encoding | None = None) -> Encoding:
    """The encoding of this name that a choice asks for, without features or head. What it leaves open is as in `like`,
    the encoding of the store that stands: its block rule too. Raises InvalidInputError, also for draws that the
    encoding does not make."""
    encoding = _kind(name, choice, space).chosen(choice, space, like=like)
    return encoding.model_copy(update={"block_rule": like.block_rule if like else BLOCK_RULE})


def _kind(name: str, choice: Choice, space: LabelSpace) -> type[Encoding]:
    kind = encoding_class(name)
    if space.subclasses > 1 and not kind.COMPLETE:  # a class's logit is a sum over subclasses, and a top k holds some
        raise InvalidInputError(
            f"{space.subclasses} subclasses a class need all logits, and {name} keeps some; use --encoding full"
        )
    if not kind.DRAWN and (choice.draws, choice.draw_temperature) != (None, None):
        raise InvalidInputError(f"--draws and --draw-temperature are of --encoding sampled, and {name} was chosen")
    return kind


def narrowed(source: Encoding, choice: Choice, space: LabelSpace, name: str | None = None) -> Encoding:
    """The encoding to which a store in `source` is recoded: that of the name, or top-k where a top k is chosen, or else
    its own; what it keeps beside soft labels stays. Raises InvalidInputError for what the source does not hold."""
    name = name or (TopKEncoding.model_fields["name"].default if choice.top_k is not None else source.name)
    encoding = _kind(name, choice, space).narrowed(source, choice, space)
    return encoding.model_copy(update={key: getattr(source, key) for key in CARRIED})


def read_as(encoding: Encoding, top_k: int | None) -> Encoding:
    """The encoding that soft labels have for a reader who asks for their best `top_k` classes, or for all of them.
    Raises InvalidInputError for those that have no best classes."""
    return encoding if top_k is None else TopKEncoding(k=top_k, **encoding.prefix_settings())


def encoding_of(record: Any) -> Encoding:
    """The encoding that a record names, with all its keys checked. Raises ValueError."""
    if isinstance(record, Encoding):
        return record
    name = record.get("name") if isinstance(record, Mapping) else None
    if not isinstance(name, str) or name not in ENCODINGS:
        raise ValueError(f"the encoding's name must be one of {', '.join(ENCODINGS)}")
    try:
        return ENCODINGS[name].model_validate(record)
    except ValidationError as error:
        raise ValueError(explain(error)) from error


AnyEncoding = Annotated[Encoding, PlainValidator(encoding_of), SerializeAsAny()]
