"""`kdcache/partial.json`: what a copy of a seal leaves out on purpose, which tells it from what was lost.

A copy may lack whole segments, and taps of the segments that it holds. Its content id stays that of the seal.
"""

from collections.abc import Iterable, Mapping, Set
from typing import Annotated, ClassVar, Self

from pydantic import FailFast, Field

from kdcache.base.limits import PARTIAL_LIMIT
from kdcache.base.records import Record
from kdcache.errors import DamagedError, StoreError
from kdcache.labels.encoding import TAPS_MAX
from kdcache.places.place import Place, get_optional
from kdcache.store.layout import PARTIAL
from kdcache.store.sealed_segment import SealedSegment

TapArray = Annotated[str, Field(pattern=r"^taps\.[0-9]{1,2}$")]


class TaplessSegment(Record):
    """A segment of which arrays of taps are left out. All else of it is there."""

    segment: SealedSegment
    arrays: Annotated[tuple[TapArray, ...], Field(min_length=1, max_length=TAPS_MAX)]


class Partial(Record):
    """Parts left out of a copy: `left_out` lists segments, as seals do, and `without` segments that lack
    taps."""

    LATER: ClassVar[tuple[str, ...]] = ("without",)

    left_out: Annotated[tuple[SealedSegment, ...], FailFast()]
    without: Annotated[tuple[TaplessSegment, ...], FailFast()] = ()

    @classmethod
    def of(
        cls, left_out: Iterable[SealedSegment], segments: Iterable[SealedSegment] = (), arrays: Iterable[str] = ()
    ) -> Self:
        """The record of a copy that lacks the segments `left_out`, and of others the same arrays."""
        return cls(left_out=tuple(left_out), without=_tapless({segment: set(arrays) for segment in segments}))

    def absent(self) -> dict[SealedSegment, set[str]]:
        """The arrays that are left out, by segment."""
        arrays: dict[SealedSegment, set[str]] = {}
        for entry in self.without:
            arrays.setdefault(entry.segment, set()).update(entry.arrays)
        return arrays

    def after_copy(self, copy: "Partial", copied: tuple[SealedSegment, ...], sealed: Set[SealedSegment]) -> Self:
        """The record of a target, which had this one, once the segments `copied` lie there as `copy` says.

        `sealed` are the segments of the seals that stand at the target: this record names all that is absent of them.
        """
        here = sealed - set(self.left_out)
        left_out = [entry for entry in dict.fromkeys((*self.left_out, *copy.left_out)) if entry not in here]
        absent, left = self.absent(), copy.absent()
        for segment in copied:
            before, now = absent.get(segment, set()), left.get(segment, set())
            absent[segment] = before & now if segment in here else now
        return self.model_copy(
            update={
                "left_out": tuple(entry for entry in left_out if entry not in copied),
                "without": _tapless(absent),
            }
        )

    def after_seal(self, absent: Mapping[SealedSegment, Set[str]]) -> Self:
        """This record once a seal lists some segments, of which these arrays of taps are absent."""
        left_out = tuple(entry for entry in self.left_out if entry not in absent)
        return self.model_copy(update={"left_out": left_out, "without": _tapless({**self.absent(), **absent})})


NOTHING = Partial(left_out=())


def read_partial(folder: Place, *, target: bool = False) -> Partial:
    """The record of what a copy leaves out; `NOTHING` where it has none. Raises FormatError for another record.

    A web server that answers neither yes nor no for a missing file counts as one that has no record. So does a bucket
    that answers 403, except as a `target`. Should a partial copy lie there all the same, then a read of what was left
    out ends in an error of the missing files: no other bytes are read, and a pull of them is never sealed.
    """
    try:
        data = (
            folder.get(PARTIAL, limit=PARTIAL_LIMIT) if target else get_optional(folder, PARTIAL, limit=PARTIAL_LIMIT)
        )
    except DamagedError:
        raise
    except StoreError:
        if folder.lists:
            raise
        data = None
    return NOTHING if data is None else Partial.from_bytes(data, str(folder.path(PARTIAL)))


def replace_partial(folder: Place, current: Partial, record: Partial) -> None:
    """Bring `kdcache/partial.json` up to date, from one record to another. It goes once it lists nothing."""
    if record == current:
        return
    if record == NOTHING:
        folder.delete(PARTIAL)
    else:
        folder.replace(PARTIAL, record.to_bytes())


def _tapless(absent: Mapping[SealedSegment, Set[str]]) -> tuple[TaplessSegment, ...]:
    """The entries of segments that lack arrays, in one order, so that equal copies have equal records."""
    return tuple(
        TaplessSegment(segment=segment, arrays=tuple(sorted(arrays, key=lambda name: (len(name), name))))
        for segment, arrays in sorted(absent.items(), key=lambda item: (item[0].views, item[0].digest))
        if arrays
    )
