"""Which segments of a sealed store a copy leaves out: a partial copy says so itself, so that damage is told from it."""

from typing import Annotated, Self

from pydantic import FailFast

from kdcache.base.limits import SEAL_LIMIT
from kdcache.base.records import Record
from kdcache.errors import DamagedError, StoreError
from kdcache.places.place import Place, get_optional
from kdcache.store.layout import PARTIAL
from kdcache.store.seals import SealedSegment


class Partial(Record):
    """`kdcache/partial.json`: the segments, as seals list them, that were left out when the copy was made."""

    left_out: Annotated[tuple[SealedSegment, ...], FailFast()]

    def less(self, held: tuple[SealedSegment, ...]) -> Self:
        """What is still left out once the segments `held` are there."""
        return self.model_copy(update={"left_out": tuple(each for each in self.left_out if each not in held)})


def read_partial(folder: Place, *, target: bool = False) -> tuple[SealedSegment, ...]:
    """The segments that this copy leaves out; none where it does not say so. Raises FormatError for another record.

    A web server that answers neither yes nor no for what is missing counts as saying nothing, and so does a bucket that
    answers 403, but as a `target`. Should it hold a partial copy all the same, then views that were left out are tried,
    and end in an error of their missing files: no other bytes are read, and a pull of them is never sealed.
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


def drop_left_out(folder: Place, before: tuple[SealedSegment, ...], held: tuple[SealedSegment, ...]) -> None:
    """Bring `kdcache/partial.json` up to date with segments that a folder holds whole; nothing left, no record."""
    left = Partial(left_out=before).less(held)
    if not left.left_out:
        folder.delete(PARTIAL)
    elif left.left_out != before:
        folder.replace(PARTIAL, left.to_bytes())
