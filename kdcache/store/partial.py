"""Partial copies of a sealed store: a copy's own record tells the segments that it leaves out from damaged ones."""

from typing import Annotated, Self

from pydantic import FailFast

from kdcache.base.limits import SEAL_LIMIT
from kdcache.base.records import Record
from kdcache.errors import DamagedError, StoreError
from kdcache.places.place import Place, get_optional
from kdcache.store.layout import PARTIAL
from kdcache.store.seals import SealedSegment


class Partial(Record):
    """`kdcache/partial.json`: the segments that were left out when the copy was made, as seals list them."""

    left_out: Annotated[tuple[SealedSegment, ...], FailFast()]

    def without(self, segments: tuple[SealedSegment, ...]) -> Self:
        """This record less `segments`, which are there now."""
        left_out = tuple(segment for segment in self.left_out if segment not in segments)
        return self.model_copy(update={"left_out": left_out})


def read_partial(folder: Place, *, target: bool = False) -> tuple[SealedSegment, ...]:
    """The segments that a copy leaves out; none where it has no such record. Raises FormatError for another record.

    A web server that answers neither yes nor no for a missing file counts as one that has no record. So does a bucket
    that answers 403, except as a `target`. Should a partial copy lie there all the same, then a read of views that were
    left out ends in an error of their missing files: no other bytes are read, and a pull of them is never sealed.
    """
    try:
        data = folder.get(PARTIAL, limit=SEAL_LIMIT) if target else get_optional(folder, PARTIAL, limit=SEAL_LIMIT)
    except DamagedError:
        raise
    except StoreError:
        if folder.lists:
            raise
        data = None
    return () if data is None else Partial.from_bytes(data, str(folder.path(PARTIAL))).left_out


def drop_left_out(folder: Place, left_out: tuple[SealedSegment, ...], segments: tuple[SealedSegment, ...]) -> None:
    """Bring `kdcache/partial.json`, which lists `left_out`, up to date with `segments` that a folder holds whole. The
    record goes once it lists none."""
    partial = Partial(left_out=left_out).without(segments)
    if not partial.left_out:
        folder.delete(PARTIAL)
    elif partial.left_out != left_out:
        folder.replace(PARTIAL, partial.to_bytes())
