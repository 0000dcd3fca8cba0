"""Labelled rows: a row of another label than the data set's is named by whoever reads it, in any form and any part."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kdcache.errors import InvalidInputError, SampleError
from kdcache.views.contents import contents_of
from kdcache.views.data import Data, describe_samples
from kdcache.views.data_parts import part_of
from kdcache.views.reading import is_strikable, read_sample

ROWS, LATE = 100, 37  # a row that no look at the start meets


class Rows:
    """Samples of four classes; the label of one row is another than that of the attribute."""

    def __init__(self, form: Callable[[int], Any] = int, late: Any = 3, *, attribute: bool = True) -> None:
        self.form, self.late, self.reads = form, late, 0
        self.ids = [f"{index}.png" for index in range(ROWS)]
        if attribute:
            self.targets = [index % 4 for index in range(ROWS)]

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        is_late = index == LATE and (hasattr(self, "targets") or self.reads > ROWS)
        label = self.late if is_late else self.form(index % 4)
        return torch.full((3, 4, 4), index, dtype=torch.uint8), label


def refusal(data: Data, index: int = LATE) -> SampleError:
    with pytest.raises(SampleError) as error:
        read_sample(data.samples, index, data.ids[index])
    return error.value


@pytest.mark.parametrize("form", [int, np.int64, torch.tensor, float, lambda value: np.array([value])])
def test_each_row_is_compared_when_it_is_read(form: Callable[[int], Any]) -> None:
    data = describe_samples(Rows(form, form(3)), "mine")
    for index in range(ROWS):
        if index != LATE:
            assert int(data.samples[index][0][0, 0, 0]) == index
    error = refusal(data)
    assert (error.index, error.part, is_strikable(error)) == (LATE, "data set", True)
    assert all(word in str(error) for word in ("sample 37 (37.png)", "has label", "3", "and 1 in", "`targets`"))


@pytest.mark.parametrize("late", [None, -1, "1", [0, 1, 0, 0], 1.5])
def test_what_is_no_such_number_is_another_label(late: Any) -> None:
    assert "sample 37 (37.png)" in str(refusal(describe_samples(Rows(int, late), "mine")))


def test_labels_of_rows_are_compared_when_they_are_read_again() -> None:
    """As where another sample is given, at random, in place of one that cannot be read."""
    data = describe_samples(Rows(attribute=False), "mine")
    assert data.labels[LATE] == 1
    assert "and 1 when labels were read" in str(refusal(data))


def test_labels_that_mean_something_else_are_left_alone() -> None:
    data = describe_samples(Rows(), "mine", labels="none")
    assert data.samples[LATE][1] == 3
    assert not data.is_labelled


def test_rows_without_a_label_or_with_more_are_rows() -> None:
    class Short(Rows):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index)[:1]

    class Long(Rows):
        def __getitem__(self, index: int) -> Any:
            return (*super().__getitem__(index), "more")

    short, long = describe_samples(Short(), "mine"), describe_samples(Long(late=1), "mine")
    assert all(len(short.samples[index]) == 1 and len(long.samples[index]) == 3 for index in range(ROWS))
    part = part_of(long, np.array([5, LATE]))
    assert part.samples[1][1:] == (1, "more")
    assert len(part_of(short, np.array([5, LATE])).samples[1]) == 1


def test_bytes_are_those_of_the_data_set() -> None:
    class WithContent(Rows):
        def content(self, index: int) -> bytes:
            return b"%d" % index

    data = describe_samples(WithContent(), "mine")
    assert contents_of(data.samples) == "bytes"
    assert data.samples.content(7) == b"7"  # type: ignore[attr-defined]
    assert contents_of(describe_samples(Rows(), "mine").samples) == "values"


def test_in_a_part_the_error_has_the_part_s_index() -> None:
    data = part_of(describe_samples(Rows(), "mine"), np.array([90, LATE, 4]))
    error = refusal(data, 1)
    assert (error.index, is_strikable(error)) == (1, True)
    assert "(37.png)" in str(error)


def test_an_error_that_is_its_own_cause_ends() -> None:
    class Torn(Rows):
        def __getitem__(self, index: int) -> Any:
            if index == LATE:
                try:
                    raise ValueError("torn")
                except ValueError as error:
                    raise error from error
            return super().__getitem__(index)

    error = refusal(describe_samples(Torn(), "mine"))
    assert is_strikable(error)
    assert "ValueError: torn" in str(error)


def test_a_data_set_that_grows_while_it_is_looked_at_is_refused() -> None:
    class Growing(Rows):
        length = ROWS - 10
        ids = None  # type: ignore[assignment]

        def __init__(self) -> None:
            self.form, self.late, self.reads = int, 1, 0

        def __len__(self) -> int:
            self.length += 1
            return self.length

    with pytest.raises(InvalidInputError, match=r"had \d+ samples and has \d+ now"):
        describe_samples(Growing(), "mine")
    rows = Rows(late=1)
    rows.ids = rows.ids[:3]
    with pytest.raises(InvalidInputError, match=r"3 ids for 100 samples"):
        describe_samples(rows, "mine")


def test_ids_that_several_samples_have_are_noted() -> None:
    rows = Rows(late=1)
    assert describe_samples(rows, "mine").notes == ()
    rows.ids = ["same"] * 60 + [str(index) for index in range(40)]
    assert describe_samples(rows, "mine").notes == (
        "100 samples have 41 ids between them: 60 are 'same'; no id tells them apart",
    )
