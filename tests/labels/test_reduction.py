"""reduction: the k best classes, their distances, the tail's logsumexp and the label, against scipy in f64."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp as scipy_logsumexp

from kdcache.labels.reduction import centre, finite_rows, label_distances, logsumexp, reduce_topk

Array = npt.NDArray[Any]
FLOATS = ["float16", "float32", "float64"]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, Array, int, tuple[int, ...]]:
    """Logits [V, B, C], labels [V, B, 1], k, masked classes: small and huge C, ties, gaps, all float types."""
    classes = draw(st.one_of(st.integers(2, 40), st.sampled_from([1000, 65_536, 65_537, 100_000])))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 4)))
    rng = np.random.RandomState(draw(st.integers(0, 2**31)))
    logits = rng.normal(0, draw(st.sampled_from([0.01, 1.0, 6.0])), (*shape, classes))
    if draw(st.booleans()):
        logits = np.round(logits)  # ties
    gap = draw(st.sampled_from([0.0, 40.0, 2000.0]))
    logits[..., rng.randint(classes)] += gap
    masked = (int(rng.randint(classes)),) if classes > 2 and draw(st.booleans()) else ()
    usable = classes - len(masked)
    k = draw(
        st.one_of(st.integers(1, min(usable, 30)), st.sampled_from([usable - 1, usable]).filter(lambda k: 0 < k < 50))
    )
    labels = rng.randint(-1, classes, (*shape, 1))
    return logits.astype(draw(st.sampled_from(FLOATS))), labels, k, masked


def _dense_f64(logits: Array, masked: tuple[int, ...]) -> Array:
    dense = logits.astype(np.float64)
    dense[..., list(masked)] = -np.inf
    return dense - dense.max(axis=-1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_numpy_matches_f64(case: tuple[Array, Array, int, tuple[int, ...]]) -> None:
    logits, labels, k, masked = case
    before = logits.copy()
    rows = reduce_topk(logits, labels, k, masked)
    dense = _dense_f64(logits, masked)
    visible = logits.astype(np.float64)
    visible[..., list(masked)] = -np.inf
    order = np.argsort(-visible, axis=-1, kind="stable")
    np.testing.assert_array_equal(rows.classes, order[..., :k])
    kept = np.take_along_axis(dense, order[..., :k], axis=-1)
    np.testing.assert_allclose(rows.distances, -kept, rtol=1e-6, atol=4e-6)
    rest = np.take_along_axis(dense, order[..., k:], axis=-1)
    for column, temperature in enumerate((1, 2, 4)):
        if logits.shape[-1] - len(masked) == k:
            assert np.isneginf(rows.tail[..., column]).all()
        else:
            np.testing.assert_allclose(
                rows.tail[..., column], scipy_logsumexp(rest / temperature, axis=-1), rtol=1e-5, atol=1e-5
            )
    known = (labels >= 0) & ~np.isin(labels, masked)
    distance = -np.take_along_axis(dense, np.maximum(labels, 0), axis=-1)
    np.testing.assert_allclose(rows.label, np.where(known, distance, np.nan), rtol=1e-6, atol=4e-6)
    np.testing.assert_array_equal(logits, before)  # the teacher's output is not written into


@settings(max_examples=60, deadline=None)
@given(cases())
def test_torch_agrees_with_numpy(case: tuple[Array, Array, int, tuple[int, ...]]) -> None:
    logits, labels, k, masked = case
    ours = reduce_topk(logits, labels, k, masked)
    theirs = reduce_topk(torch.from_numpy(logits), torch.from_numpy(labels), k, masked)
    np.testing.assert_array_equal(theirs.distances.numpy(), ours.distances)
    np.testing.assert_array_equal(theirs.label.numpy(), ours.label)
    np.testing.assert_allclose(theirs.tail.numpy(), ours.tail, rtol=2e-5, atol=2e-5)
    # Which of several equal logits at the edge of the top k is kept is the device's choice; elsewhere ids are equal.
    inside = ours.distances < ours.distances[..., -1:]
    np.testing.assert_array_equal(theirs.classes.numpy()[inside], ours.classes[inside])
    centred = centre(logits, masked)
    np.testing.assert_array_equal(-np.take_along_axis(centred, theirs.classes.numpy(), axis=-1), ours.distances)
    assert all(len(set(row)) == k for row in theirs.classes.reshape(-1, k).tolist())


@pytest.mark.parametrize("dtype", FLOATS)
def test_work_is_f32_at_least(dtype: str) -> None:
    expected = "float64" if dtype == "float64" else "float32"
    rows = reduce_topk(np.zeros((2, 5), dtype=dtype), np.zeros((2, 1), dtype=np.int64), 2)
    assert (rows.distances.dtype, rows.tail.dtype, rows.label.dtype) == (expected, expected, expected)


def test_bfloat16_is_widened() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.bfloat16)
    rows = reduce_topk(logits, torch.tensor([[0]]), 2)
    assert rows.distances.dtype == torch.float32
    assert rows.classes.tolist() == [[1, 2]]
    assert rows.label.tolist() == [[2.0]]


def test_ties_go_to_the_lower_id() -> None:
    rows = reduce_topk(np.zeros((1, 6), dtype=np.float32), np.array([[5]]), 4)
    assert rows.classes.tolist() == [[0, 1, 2, 3]]
    assert rows.distances.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("xp", [np.asarray, torch.asarray])
def test_the_teachers_order_outlives_a_huge_top(xp: Any) -> None:
    """0.00001 and 0.00002 less 2000 are one f32: the order is that of the logits, not of the distances."""
    rows = reduce_topk(xp(np.array([[0.00001, 0.00002, 2000.0]], dtype=np.float32)), xp(np.array([[0]])), 3)
    assert rows.classes.tolist() == [[2, 1, 0]]
    assert rows.distances[0, 1] == rows.distances[0, 2] == 2000.0


def test_two_labels_and_no_label() -> None:
    logits = np.array([[0.0, 5.0, 4.0], [0.0, 5.0, 4.0]], dtype=np.float32)
    rows = reduce_topk(logits, np.array([[0, 2], [-1, 1]]), 1)
    np.testing.assert_array_equal(rows.label, [[5.0, 1.0], [np.nan, 0.0]])


def test_masked_label_is_none_and_masked_class_is_absent() -> None:
    centred = centre(np.array([[9.0, 1.0, 0.0]], dtype=np.float32), (0,))
    np.testing.assert_array_equal(centred, [[-np.inf, 0.0, -1.0]])
    np.testing.assert_array_equal(label_distances(centred, np.array([[0, 2]])), [[np.nan, 1.0]])


@pytest.mark.parametrize("xp", [np.asarray, torch.asarray])
def test_logsumexp_of_nothing_is_minus_infinity(xp: Any) -> None:
    values = xp(np.array([[-np.inf, -np.inf], [-2000.0, -np.inf], [1000.0, 1000.0]], dtype=np.float32))
    np.testing.assert_allclose(np.asarray(logsumexp(values)), [-np.inf, -2000.0, 1000.0 + np.log(2)], rtol=1e-6)


@pytest.mark.parametrize("xp", [np.asarray, torch.asarray])
def test_finite_rows_forgives_masked_classes_only(xp: Any) -> None:
    logits = xp(np.array([[0, 1, 2], [np.nan, 1, 2], [0, np.inf, 2], [0, 1, -np.inf]], dtype=np.float32))
    assert np.asarray(finite_rows(logits)).tolist() == [True, False, False, False]
    assert np.asarray(finite_rows(logits, (2,))).tolist() == [True, False, False, True]
    assert np.isneginf(np.asarray(logits)[3, 2])  # asking changes nothing
