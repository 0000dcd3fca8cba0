"""class_numbers: a split is numbered by the names of another; what cannot be matched is refused with both lists."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcache.errors import InvalidInputError
from kdcache.views.class_numbers import numbered_by, require_alike
from kdcache.views.data import Data, describe_samples
from kdcache.views.label_numbers import absent_notes
from tests.kits.views import pictures

TRAINING = ("ant", "bee", "cat", "dog")


def split(labels: list[int], names: tuple[str, ...]) -> Data:
    data = describe_samples(pictures(len(labels)), "split")
    numbers = np.array(labels, dtype=np.int32)
    return replace(data, labels=numbers, class_names=names, notes=absent_notes(numbers, names))


@given(st.data())
def test_every_label_keeps_its_name(data: st.DataObject) -> None:
    names = tuple(data.draw(st.lists(st.sampled_from(TRAINING), min_size=1, unique=True)))
    labels = data.draw(st.lists(st.integers(-1, len(names) - 1), min_size=1, max_size=6))
    before = split(labels, names)
    after = numbered_by(before, TRAINING)
    name_of = {-1: None}
    expected = [{**name_of, **dict(enumerate(names))}[label] for label in labels]
    numbering = after.class_names if after.class_names != names else names
    assert [{**name_of, **dict(enumerate(numbering))}[label] for label in after.labels.tolist()] == expected
    if max(labels) >= 0:
        used = {TRAINING[label] for label in after.labels.tolist() if label >= 0}
        assert used == {name for name in expected if name}
        absent = sorted(set(TRAINING) - used)
        assert any("training's 4 classes" in note for note in after.notes) == bool(absent)
        assert all(name in " ".join(after.notes) for name in absent)


def test_equal_numbering_changes_nothing_but_notes() -> None:
    data = split([0, 1, 2, 3], TRAINING)
    assert numbered_by(data, TRAINING).notes == ()
    assert numbered_by(data, TRAINING).identity() == data.identity()
    first = split([0, 1, 1], ("ant", "bee"))
    assert numbered_by(first, TRAINING).identity() == first.identity()
    assert numbered_by(first, TRAINING).notes == ("validation has no row of 2 of training's 4 classes: cat, dog",)


def test_a_class_that_training_lacks_is_refused_with_both_lists() -> None:
    with pytest.raises(InvalidInputError) as refused:
        numbered_by(split([0, 1], ("bee", "zebra")), TRAINING)
    assert "zebra" in str(refused.value)
    assert "ant, bee, cat, dog" in str(refused.value)
    unused = numbered_by(split([0, 0], ("bee", "zebra")), TRAINING)  # no row has it
    assert unused.labels.tolist() == [1, 1]
    with pytest.raises(InvalidInputError, match="not once: ant"):
        numbered_by(split([0], ("ant",)), ("ant", "bee", "ant"))
    twins = ("ant", "bee", "ant")
    assert numbered_by(split([0, 2, 1], twins), twins).labels.tolist() == [0, 2, 1]


def test_accents_are_equal_in_both_forms_of_unicode() -> None:
    assert numbered_by(split([0, 1], ("cafe\u0301", "tea")), ("tea", "caf\u00e9")).labels.tolist() == [1, 0]


def test_without_names_on_one_side_a_note_says_so() -> None:
    assert numbered_by(split([0, 1], ()), TRAINING).notes[-1] == (
        "validation names no classes: validation is taken by number"
    )
    assert numbered_by(split([0, 1], ("a", "b")), ()).notes[-1].startswith("training names no classes")
    assert numbered_by(split([0, 1], ()), ()).notes == ()


@pytest.mark.parametrize(
    ("names", "classes", "is_alike"),
    [
        (TRAINING, 4, True), ((), 9, True), (TRAINING[:2], 4, True), (TRAINING[:2], 2, False),
        (TRAINING[::-1], 4, False), (TRAINING[1:], 3, False), ((*TRAINING, "eel"), 5, False),
    ],
)  # fmt: skip
def test_a_store_numbers_its_classes_as_training_does(names: tuple[str, ...], classes: int, is_alike: bool) -> None:
    if is_alike:
        require_alike(names, TRAINING, classes=classes, store="val.kd")
    else:
        with pytest.raises(InvalidInputError, match=r"val\.kd numbers its classes otherwise than training"):
            require_alike(names, TRAINING, classes=classes, store="val.kd")
    require_alike(names, (), classes=classes, store="val.kd")
