"""Sums over ids: one id of a block that is another is located, and blocks' sums add up."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdcache.store.id_sums import added_sums, differing_position, id_sums


@given(start=st.integers(0, 2**27), rows=st.integers(1, 300), data=st.data())
def test_the_one_id_that_differs_is_located(start: int, rows: int, data: st.DataObject) -> None:
    ids = [f"class/{number}.jpg" for number in range(rows)]
    row = data.draw(st.integers(0, rows - 1))
    changed = [*ids[:row], "class/another.jpg", *ids[row + 1 :]]
    positions = range(start, start + rows)
    assert differing_position(id_sums(start, ids), id_sums(start, changed), positions) == start + row
    assert differing_position(id_sums(start, ids), id_sums(start, ids), positions) is None


def test_several_ids_that_differ_are_not_taken_for_one() -> None:
    rng, mistaken = np.random.RandomState(0), 0
    for trial in range(300):
        ids = [f"{trial}/{number}" for number in range(64)]
        changed = list(ids)
        for row in rng.choice(64, size=rng.randint(2, 6), replace=False).tolist():
            changed[row] += "b"
        mistaken += differing_position(id_sums(0, ids), id_sums(0, changed), range(64)) is not None
    assert mistaken == 0


def test_sums_of_neighbours_add_up() -> None:
    ids = [f"{number}" for number in range(100)]
    assert added_sums(id_sums(0, ids[:64]), id_sums(64, ids[64:])) == id_sums(0, ids)
    assert added_sums(id_sums(0, ids[:64]), ()) == ()
