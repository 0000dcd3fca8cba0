"""The passes of an extraction: the spans of views that a store lacks, one segment each."""

from collections.abc import Iterable, Iterator

from kdcache.base.view_span import ViewSpan, shown_spans
from kdcache.errors import InvalidInputError, StoreNotFoundError
from kdcache.pipelines.command_lines import command_line
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.segment import Segment
from kdcache.store.store import Store


def spans_to_extract(settings: ExtractSettings) -> tuple[ViewSpan, ...]:
    """The spans to go through, one or more. A number of views names what a store lacks of it: its unfinished segments
    come first, then new ones; where nothing lacks, the segment that holds the last of them. A range is taken as it is.

    Raises InvalidInputError for a range that overlaps another that stands, with the command that works.
    """
    asked = settings.views
    try:
        segments = Store.open_for_writing(settings.store).segments
    except StoreNotFoundError:
        return (asked,)
    standing = [segment.views for segment in segments]
    if standing == [asked]:  # nothing to look for: its commits are listed once, when it goes on
        return (asked,)
    missing = list(_gaps(asked, standing))
    if not asked.is_count:
        if asked not in standing and missing != [asked]:
            raise _overlapping(settings, standing, missing)
        return (asked,)
    spans = [*(segment.views for segment in segments if not _is_whole(segment)), *missing]
    return tuple(spans) or tuple(span for span in standing if asked.stop - 1 in span)


def _gaps(asked: ViewSpan, standing: Iterable[ViewSpan]) -> Iterator[ViewSpan]:
    """The views of a span that no other has, as spans."""
    start = asked.start
    for span in sorted(span for span in standing if span.overlaps(asked)):
        if start < span.start:
            yield ViewSpan(start, span.start)
        start = max(start, span.stop)
    if start < asked.stop:
        yield ViewSpan(start, asked.stop)


def _is_whole(segment: Segment) -> bool:
    return len(segment.commits()) == segment.layout.blocks


def _overlapping(settings: ExtractSettings, standing: list[ViewSpan], missing: list[ViewSpan]) -> InvalidInputError:
    asked = settings.views
    overlapped = [span for span in standing if span.overlaps(asked)]
    if len(missing) == 1:
        views, purpose = missing[0], "to add what lacks"
    elif asked.start == 0:
        views, purpose = ViewSpan(0, asked.stop, is_count=True), "to finish these and add what lacks"
    else:
        views, purpose = overlapped[0], "to finish the first"
    words = command_line("extract", "store", settings.model_copy(update={"views": views}))
    return InvalidInputError(
        f"views {asked} overlap {shown_spans(overlapped)}, which {settings.store} has already; {purpose}: {words}"
    )
