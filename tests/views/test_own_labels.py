"""own_labels: a label of any form is the right number, or is refused by its sample; rows are (image, label)."""

import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdcache.errors import InvalidInputError
from kdcache.views.data import describe_samples
from kdcache.views.label_numbers import LARGEST, absent_notes, class_number, label_notes
from kdcache.views.own_labels import CHECKED

IDS = ("x.png", "y.png", "z.png", "w.png")
ROUND = {
    "int": int, "float": float, "numpy i64": np.int64, "numpy u32": np.uint32, "numpy f32": np.float32,
    "0-d array": np.array, "array of one": lambda value: np.array([value]), "0-d tensor": torch.tensor,
    "tensor of one": lambda value: torch.tensor([[value]]), "float tensor": lambda value: torch.tensor(float(value)),
    "Fraction": Fraction, "Decimal": Decimal, "object": lambda value: np.array(value, dtype=object),
}  # fmt: skip


class Rows:
    """Four samples with labels as an attribute, as rows, or both."""

    ids = IDS

    def __init__(self, rows: Sequence[Any], labels: Any = None, name: str = "targets") -> None:
        self.rows = rows
        if labels is not None:
            setattr(self, name, labels)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3, 4, 4, dtype=torch.uint8), self.rows[index]


def labels_of(rows: Sequence[Any], labels: Any = None, name: str = "targets") -> list[int]:
    return describe_samples(Rows(rows, labels, name), "mine").labels.tolist()


@settings(max_examples=60, deadline=None)
@given(value=st.integers(0, 16_000_000), form=st.sampled_from(sorted(ROUND)), as_attribute=st.booleans())
def test_a_whole_number_of_any_form_is_the_label(value: int, form: str, as_attribute: bool) -> None:
    label = ROUND[form](value)
    rows = [label, None, -1, True]
    assert labels_of(rows, rows if as_attribute else None) == [value, -1, -1, 1]


CONTAINERS = {
    "list": list, "tuple": tuple, "i64": np.array, "f64": lambda values: np.array(values, dtype=float),
    "i8 column": lambda values: np.array(values, dtype="i1")[:, None], "tensor": torch.tensor,
    "bf16 tensor": lambda values: torch.tensor(values, dtype=torch.bfloat16), "object": lambda v: np.array(v, "O"),
    "list of tensors": lambda values: [torch.tensor([value]) for value in values],
    "masked": lambda values: np.ma.masked_less(np.array(values), 0),
}  # fmt: skip


@pytest.mark.parametrize("form", CONTAINERS)
@pytest.mark.parametrize("name", ["labels", "targets"])
def test_the_attribute_of_any_form_gives_the_labels(form: str, name: str) -> None:
    values = [3, -1, 0, 7]
    assert labels_of(values, CONTAINERS[form](values), name) == values


def test_flags_are_classes_0_and_1() -> None:
    flags = [True, False, True, True]
    assert labels_of(flags, np.array(flags)) == labels_of(flags, torch.tensor(flags)) == [1, 0, 1, 1]


UNFIT = {
    "decimals": (1.31, "1.31"), "numpy decimals": (np.float32(0.5), "0.5"), "NaN": (float("nan"), "nan"),
    "infinity": (float("inf"), "inf"), "a word": ("astronaut", "astronaut"), "a word of digits": ("3", "'3'"),
    "bytes": (b"cat", "cat"), "one-hot": (np.eye(4)[2], "4 values"), "multi-hot": (torch.ones(6), "6 values"),
    "an empty array": (np.zeros(0), "0 values"), "a list": ([1, 2], "[1, 2]"), "a dict": ({"label": 1}, "dict"),
    "-100": (-100, "give -1 or None"), "-2": (np.int64(-2), "give -1 or None"), "beyond i32": (2**31, str(LARGEST)),
    "far beyond": (10**30, str(LARGEST)), "complex": (1j, "complex"), "a picture": (Image.new("L", (2, 2)), "Image"),
    "a date": (np.datetime64("2026-01-01"), "date"), "a third": (Fraction(1, 3), "Fraction(1, 3)"),
    "a set": ({1}, "{1}"), "half of a tensor": (torch.tensor(2.5), "2.5"), "NaN as Decimal": (Decimal("nan"), "NaN"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
@pytest.mark.parametrize("as_attribute", [True, False], ids=["attribute", "rows"])
def test_what_numbers_no_class_is_refused_by_sample_and_value(case: str, as_attribute: bool) -> None:
    label, shown = UNFIT[case]
    rows = [0, 1, label, 2]
    with pytest.raises(InvalidInputError) as refused:
        labels_of(rows, rows if as_attribute else None)
    message = str(refused.value)
    assert "sample 2 (z.png)" in message
    assert shown in message
    assert len(message) < 500


@settings(max_examples=80, deadline=None)
@given(st.one_of(st.floats(), st.integers(), st.text(), st.binary(), st.complex_numbers(), st.booleans(), st.none()))
def test_any_value_is_right_or_refused(value: Any) -> None:
    try:
        number = class_number(value)
    except ValueError:
        assert value is not None
        return
    assert (number == -1 and value is None) or (number == value and -1 <= number <= LARGEST)
    assert type(number) is int


def test_arrays_are_refused_at_the_first_wrong_sample() -> None:
    for values in (np.array([0.0, 1.0, 2.5, 3.5]), torch.tensor([0.0, 1.0, 2.5, 3.5]), [0, 1, 2.5, "x"]):
        with pytest.raises(InvalidInputError, match=r"sample 2 \(z\.png\)"):
            labels_of([0, 1, 2, 3], values)
    with pytest.raises(InvalidInputError, match=r"sample 0 \(x\.png\) has label .*6 values"):
        labels_of([0, 1, 2, 3], np.eye(6)[[0, 1, 2, 3]])


def test_the_attribute_is_held_against_rows() -> None:
    """First, last and some between: a target_transform shows, also one that changes the last row alone."""
    assert labels_of([5, 4, 3, 2], [5, 4, 3, 2]) == [5, 4, 3, 2]
    for index in range(4):
        rows: list[Any] = [5, 4, 3, 2]
        rows[index] = 9
        with pytest.raises(InvalidInputError) as refused:
            labels_of(rows, [5, 4, 3, 2])
        message = str(refused.value)
        assert f"sample {index} ({IDS[index]})" in message
        assert "9" in message
        assert f"and {5 - index} in its attribute `targets`" in message
    with pytest.raises(InvalidInputError, match="in its attribute `targets`"):
        labels_of(["cat", "cat", "dog", "dog"], [0, 0, 1, 1])
    with pytest.raises(InvalidInputError, match=r"has label None in data\[0\]\[1\] and 0"):
        labels_of([None, 0, 1, 1], [0, 0, 1, 1])


class Counting(Rows):
    """Counts the samples that are decoded."""

    ids = tuple(map(str, range(1000)))
    decoded = 0

    def __getitem__(self, index: int) -> Any:
        type(self).decoded += 1
        random.random()
        return super().__getitem__(index)


def test_few_rows_are_decoded_and_generators_stay() -> None:
    rows = list(range(1000))
    state = random.getstate()
    describe_samples(Counting(rows, rows), "mine")
    assert 2 <= Counting.decoded <= 1 + CHECKED
    assert random.getstate() == state


def test_of_two_attributes_the_one_with_a_label_a_sample_is_taken() -> None:
    samples = Rows([1, 0, 1, 0], [1, 0, 1, 0])
    samples.labels = ["no", "yes"]  # type: ignore[attr-defined]  # names, as some data sets have them
    assert describe_samples(samples, "mine").labels.tolist() == [1, 0, 1, 0]


def test_a_label_beyond_the_names_is_refused() -> None:
    """Labels that count from 1, say."""
    samples = Rows([1, 2, 3, 1], [1, 2, 3, 1])
    samples.class_names = ["a", "b", "c"]  # type: ignore[attr-defined]
    with pytest.raises(
        InvalidInputError, match=r"sample 2 \(z\.png\) has label 3: the data set names 3 classes, 0 to 2"
    ):
        describe_samples(samples, "mine")


ROW_FORMS: dict[str, tuple[Any, str]] = {
    "a dict of other keys": ({"x": 1, "y": 2}, r"a row is a dict with x, y, and none of them is its image"),
    "a picture alone": (Image.new("RGB", (4, 4)), r"this one, data\[0\], is a Image"),
    "a tensor alone": (torch.zeros(3, 4, 4), r"is a Tensor"),
    "an array alone": (np.zeros((4, 4, 3)), r"is a ndarray"),
    "a path": ("a/b.png", "is a str"),
    "nothing": (None, "is a NoneType"),
}


@pytest.mark.parametrize("case", ROW_FORMS)
@pytest.mark.parametrize("use", ["data", "none"])
@pytest.mark.parametrize("labels", [[0, 1], None], ids=["attribute", "no attribute"])
def test_a_row_of_another_form_is_refused(case: str, use: Any, labels: list[int] | None) -> None:
    row, message = ROW_FORMS[case]

    class Other(list[Any]):
        targets = labels

    with pytest.raises(InvalidInputError, match=message):
        describe_samples(Other([row, row]), "mine", labels=use)


class Stream(torch.utils.data.IterableDataset[Any]):
    """A stream with a length, as webdataset's with_length gives it."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 4


class Bare(torch.utils.data.Dataset[Any]):
    """A data set without __getitem__."""

    def __len__(self) -> int:
        return 4


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (Stream(), r"is a Stream, a stream; it must have a length and be indexable.*\(webdataset:SHARDS reads tars\)$"),
        (Bare(), "is a Bare without __getitem__"),
        ({"train": [1], "test": [2]}, "is a dict with train, test; .*return one of its data sets"),
    ],
)
def test_what_gives_no_samples_by_number_is_refused_by_name(samples: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        describe_samples(samples, "mine")


@pytest.mark.parametrize("ids", [("a", "b"), "abcd", 4, iter("abcd")])
def test_ids_are_one_a_sample(ids: Any) -> None:
    samples = Rows([0, 1, 0, 1])
    samples.ids = ids
    with pytest.raises(InvalidInputError, match="ids"):
        describe_samples(samples, "mine")


def test_without_labels_any_label_will_do_and_none_is_kept() -> None:
    samples = Rows([1.5, "x", None, np.ones(4)], ["words"] * 4)
    samples.class_names = ["a"]  # type: ignore[attr-defined]
    data = describe_samples(samples, "mine", labels="none")
    assert (data.labels.tolist(), data.class_names, data.is_labelled) == ([-1] * 4, (), False)
    labelled = describe_samples(Rows([0, 1, 2, 0]), "mine")
    assert labelled.without_labels().identity() == data.identity()


def test_a_row_that_cannot_be_read_is_left_to_those_who_draw_it() -> None:
    class Broken(Rows):
        def __getitem__(self, index: int) -> Any:
            if index in broken:
                raise OSError("truncated")
            return super().__getitem__(index)

    broken = {3}
    assert describe_samples(Broken([0, 1, 2, 3], [0, 1, 2, 3]), "mine").labels.tolist() == [0, 1, 2, 3]
    broken = {0, 1, 2, 3}
    with pytest.raises(OSError, match="truncated"):
        describe_samples(Broken([0, 1, 2, 3], [0, 1, 2, 3]), "mine")


def test_progress_hears_of_a_long_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdcache.views.own_labels.PATIENCE", -1.0)
    heard: list[tuple[str, int, int]] = []
    describe_samples(Rows([0, 1, 2, 3]), "mine", progress=lambda *report: heard.append(report))
    assert heard == [("reading labels", count, 4) for count in (1, 2, 3, 4)]


def test_notes_count_what_has_no_label_and_name_what_has_no_row() -> None:
    labels = np.array([0, -1, 2, -1], dtype=np.int32)
    assert label_notes(labels) == ("2 of 4 rows have no label",)
    assert absent_notes(labels, ("a", "b", "c", "d")) == ("2 of 4 classes have no row: b, d",)
    assert absent_notes(labels, ()) == ("1 of 3 classes have no row: 1",)
    assert label_notes(labels[[0, 2]]) == absent_notes(labels[[0, 2]][:0], ("a",)) == ()
    assert label_notes(labels[[1, 3]]) == absent_notes(labels[[1, 3]], ("a",)) == ()
    many = np.array([LARGEST], dtype=np.int32)
    assert absent_notes(many, ()) == (f"{LARGEST:,} of {LARGEST + 1:,} classes have no row: 0, 1, 2, 3, 4 and "
                                      f"{LARGEST - 5:,} more",)  # fmt: skip
