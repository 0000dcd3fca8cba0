"""Batches of fewer rows, where a device's memory runs out or a block has no more: how many, and what is said of it."""

from kdcache.networks.out_of_memory import SMALLER
from kdcache.store.layout import SegmentLayout
from kdcache.store.plan import GROUP

BEFORE_BLOCKS = (f"memory ran out outside the batches of blocks, where at most {GROUP} rows are asked at once", SMALLER)


def memory_words(place: str, rows: int) -> tuple[str, str]:
    """The problem and the next step where memory runs out in batches of `rows` rows, as `naming_memory` takes them."""
    next_step = SMALLER if rows == GROUP else f"give --batch-size {half(rows)}"
    kept = "the blocks that were committed stay, and the command goes on from there"
    return f"{place} ran out of memory with batches of {rows} rows", f"{next_step}; {kept}"


def half(rows: int) -> int:
    """Half the rows of a batch, in whole mixing groups, and one group at least."""
    return max(GROUP, rows // 2 // GROUP * GROUP)


def halved_note(place: str, rows: int, asked_rows: int) -> str:
    """A note on batches that have `rows` rows in a process, for lack of memory, and were asked to have more."""
    problem = f"{place} ran out of memory and went on with batches of {rows} rows"
    return f"{problem}: last bits may differ from those of batches of {asked_rows}"


def capped_notes(layout: SegmentLayout, batch_rows: int) -> tuple[str, ...]:
    """A note where the blocks of a layout have fewer rows than a batch may have, since no batch has rows of two."""
    rows = layout.block * len(layout.views)
    if layout.blocks == 1 or rows >= batch_rows:
        return ()
    return (
        f"a block has {rows} rows, so no batch has more, though --batch-size is {batch_rows}; more views at a time "
        "make larger ones",
    )
