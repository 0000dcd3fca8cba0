"""A span of views: `ViewSpan(start, stop)`, stop exclusive, and the one parser of spans as people write them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, GetCoreSchemaHandler, PlainSerializer
from pydantic_core import CoreSchema, core_schema

from kdcache.base.limits import VIEWS_MAX
from kdcache.errors import InvalidInputError


@dataclass(frozen=True, order=True)
class ViewSpan:
    """A span of views holds the views `start` to `stop - 1`; iterating gives their numbers. In a record it is [start,
    stop].

    A span from outside (`parse`, records) ends at 100,000 at the latest, the most views that a store may have. Raises
    InvalidInputError for a span without views.

    Attributes:
        start: The first view.
        stop: The view after the last.
        is_count: True where it was written as a number, 10 and not 0:10: extract then adds the views that a store
            lacks. Spans that differ in that alone are equal.

    Examples:
        >>> span = ViewSpan(10, 20)
        >>> str(span), len(span), 20 in span
        ('10:20', 10, False)
    """

    start: int
    stop: int
    is_count: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise InvalidInputError(f"views {self} are none; a span holds one view or more: write start:stop")

    @classmethod
    def of(cls, view: int) -> Self:
        """The span of one view."""
        return cls(view, view + 1)

    @classmethod
    def parse(cls, value: object) -> Self:
        """A span as people write it: 10 and "10" are views 0:10, "10:20" are ten from view 10 on.

        Raises InvalidInputError for any other value.

        Examples:
            >>> ViewSpan.parse("10:20") == ViewSpan(10, 20)
            True
        """
        if isinstance(value, cls):
            return value
        first, colon, second = str(value).partition(":")
        ends = (first, second) if colon else ("0", first)
        readable = isinstance(value, int | str) and not isinstance(value, bool)
        if not readable or not all(end.isascii() and end.isdecimal() and len(end) <= 15 for end in ends):
            raise InvalidInputError(
                f"views {str(value)[:40]!r} is neither a number such as 10 nor a range such as 10:20"
            )
        return cls(int(ends[0]), int(ends[1]), is_count=not colon).bounded()

    def bounded(self) -> Self:
        """This span. Raises InvalidInputError where it ends beyond the most views that a store may have."""
        if self.stop > VIEWS_MAX:
            raise InvalidInputError(f"views {self} were asked for; views go from 0 to {VIEWS_MAX}")
        return self

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))

    def __contains__(self, view: object) -> bool:
        return isinstance(view, int) and self.start <= view < self.stop

    def __str__(self) -> str:
        return f"{self.start}:{self.stop}"

    def overlaps(self, other: "ViewSpan") -> bool:
        """True where the spans share a view."""
        return self.start < other.stop and other.start < self.stop

    def within(self, other: "ViewSpan") -> bool:
        """True where every view lies in the other span."""
        return other.start <= self.start and self.stop <= other.stop

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        end = core_schema.int_schema(strict=True)
        pair = core_schema.no_info_after_validator_function(_from_pair, core_schema.tuple_schema([end, end]))
        return core_schema.union_schema(
            [core_schema.is_instance_schema(cls), pair],
            mode="left_to_right",
            custom_error_type="view_span",
            custom_error_message="views are two numbers [start, stop] with 0 <= start < stop <= 100000",
            serialization=core_schema.plain_serializer_function_ser_schema(_to_pair),
        )


def _from_pair(pair: tuple[int, int]) -> ViewSpan:
    try:
        return ViewSpan(*pair).bounded()
    except InvalidInputError as error:
        raise ValueError(str(error)) from error


def _to_pair(span: ViewSpan) -> tuple[int, int]:
    return span.start, span.stop


def _parse_span(value: object) -> ViewSpan:
    try:
        return ViewSpan.parse(value)
    except InvalidInputError as error:
        raise ValueError(str(error)) from error


WrittenSpan = Annotated[ViewSpan, BeforeValidator(_parse_span), PlainSerializer(str)]
"""A field of settings, read from a span as people write it, and written as such."""


def shown_spans(spans: Iterable[ViewSpan]) -> str:
    """Spans for a message: `0:10, 10:20`."""
    return ", ".join(map(str, spans))
