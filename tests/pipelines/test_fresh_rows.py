"""The rows that are drawn again: about one in 200, of each block some."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdcache.base.view_span import ViewSpan
from kdcache.pipelines.extract.fresh_rows import FEWEST, SHARE, chosen_rows
from kdcache.store.layout import SegmentLayout

SIZES = st.tuples(st.integers(1, 20_000), st.integers(6, 13), st.integers(1, 70), st.integers(0, 9))


def layout_of(rows: int, views: int, block: int = 64, start: int = 0) -> SegmentLayout:
    return SegmentLayout("views", ViewSpan(start, start + views), rows, block, {})


@given(SIZES)
@example((65, 6, 1, 0))  # the last block has one position
@example((127, 6, 1, 0))
@example((5, 6, 3, 2))
def test_each_block_has_some_of_its_rows_drawn_again(sizes: tuple[int, int, int, int]) -> None:
    """About one row (position, view) in 200 of any segment, one position of each block, eight of a segment."""
    rows, power, views, start = sizes
    layout = layout_of(rows, views, 1 << power, start)
    count = drawn = 0
    for block in range(layout.blocks):
        positions, span = chosen_rows(layout, block, 7)
        first, stop = layout.block_rows(block)
        assert positions.tolist() == sorted(set(positions.tolist()))
        assert first <= positions[0] <= positions[-1] == stop - 1
        assert start <= span.start < span.stop <= start + views
        assert (positions.tolist(), span) == (
            chosen_rows(layout, block, 7)[0].tolist(),
            chosen_rows(layout, block, 7)[1],
        )
        count += len(positions)
        drawn += len(positions) * len(span)
    assert count >= min(FEWEST, rows)
    assert drawn >= 0.6 * rows * views / SHARE
    assert drawn <= 2 * rows * views / SHARE + 2 * (FEWEST + layout.blocks)


def test_seeds_and_blocks_choose_other_rows() -> None:
    layout = layout_of(20_000, 3, 1024, 5)
    choices = [chosen_rows(layout, block, seed)[0] % 1024 for block, seed in ((0, 1), (1, 1), (0, 2))]
    assert len({tuple(choice.tolist()) for choice in choices}) == 3


@pytest.mark.parametrize(("rows", "views", "block"), [(60_000, 2, 1024), (1_281_167, 1, 8192), (50_000, 16, 256)])
def test_data_sets_as_they_are_cost_under_one_per_cent(rows: int, views: int, block: int) -> None:
    layout = layout_of(rows, views, block)
    chosen = [chosen_rows(layout, number, 0) for number in range(layout.blocks)]
    drawn = sum(len(positions) * len(span) for positions, span in chosen)
    assert 0.7 / SHARE <= drawn / (rows * views) < 0.01
