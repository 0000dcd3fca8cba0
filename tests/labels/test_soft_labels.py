"""softlabels: probabilities at any temperature against scipy in f64, on numpy and on torch."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from kdcache.errors import InvalidInputError
from kdcache.labels.full import FullLabels
from kdcache.labels.reduction import centre
from kdcache.labels.soft_labels import SoftLabels
from kdcache.labels.topk_labels import TopKLabels
from tests.kits.encoding import encode_full
from tests.labels.test_quantising import decode, encode, exact_buckets

Array = npt.NDArray[Any]
EXACT = [1.0, 2.0, 4.0]  # where the sketch holds the tail itself


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, int]:
    """Logits [1, N, C] f32 that need no clamping, and k."""
    classes = draw(st.one_of(st.integers(2, 30), st.sampled_from([1000, 70_000])))
    k = draw(
        st.one_of(st.integers(1, min(classes, 20)), st.sampled_from([classes, classes - 1]).filter(lambda k: k < 50))
    )
    rng = np.random.RandomState(draw(st.integers(0, 2**31)))
    logits = rng.normal(0, draw(st.sampled_from([0.0, 1.0, 3.0])), (1, draw(st.integers(1, 4)), classes))
    return logits.astype(np.float32), k


def topk(logits: Array, k: int) -> TopKLabels:
    _, encoded = encode(logits, k)
    return decode(encoded, logits.shape[-1])


def full(logits: Array, label: Array | None = None, masked: tuple[int, ...] = ()) -> FullLabels:
    stored = encode_full(centre(logits, masked)).arrays["logits"].astype(np.float32)
    label = np.zeros(logits.shape[:-1], dtype=np.float32) if label is None else label
    return FullLabels(stored, label, logits.shape[-1], masked)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from([1.0, 1.3, 2.0, 3.0, 4.0, 20.0]))
def test_dense_sums_to_one(case: tuple[Array, int], temperature: float) -> None:
    logits, k = case
    soft = topk(logits, k)
    for tail in ("uniform", "none"):
        dense = soft.dense(temperature, tail=tail)  # type: ignore[arg-type]
        assert dense.shape == logits.shape
        assert (dense >= 0).all()
        np.testing.assert_allclose(dense.sum(axis=-1, dtype="f8"), 1.0, atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(EXACT))
def test_head_is_the_exact_softmax_within_the_bound(case: tuple[Array, int], temperature: float) -> None:
    """A logit is off by 1/32 at most and so is the normaliser: log-probabilities by 1/16 at T = 1."""
    logits, k = case
    soft = topk(logits, k)
    head, rest = exact_buckets(logits, soft.classes, temperature)
    assert np.abs(soft.log_probs(temperature) - head).max() <= 1 / 16 + 1e-4
    dense = soft.dense(temperature)
    np.testing.assert_allclose(
        np.take_along_axis(dense, soft.classes.astype(int), axis=-1), np.exp(head), rtol=np.exp(1 / 16) - 1 + 1e-4
    )
    np.testing.assert_allclose(soft.tail_mass(temperature), np.exp(rest), atol=1 / 64 + 1e-4)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from([1.0, 1.7, 4.0, 9.0]))
def test_torch_agrees_with_numpy(case: tuple[Array, int], temperature: float) -> None:
    logits, k = case
    kinds: list[SoftLabels] = [topk(logits, k), full(logits)]
    for soft in kinds:
        tensors = soft.to()
        assert tensors.logits.dtype == torch.float32
        pairs = [
            (soft.log_probs(temperature), tensors.log_probs(temperature)),
            (soft.tail_mass(temperature), tensors.tail_mass(temperature)),
            (soft.log_normalizer(temperature), tensors.log_normalizer(temperature)),
            (soft.dense(temperature), tensors.dense(temperature)),
            (soft.dense(temperature, tail="none"), tensors.dense(temperature, tail="none")),
            (soft.prefix(1).tail, tensors.prefix(1).tail),
            (soft.prefix(1).dense(temperature), tensors.prefix(1).dense(temperature)),
        ]
        for ours, theirs in pairs:
            assert isinstance(theirs, torch.Tensor)
            np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_prefix_equals_encoding_with_fewer(case: tuple[Array, int], data: st.DataObject) -> None:
    logits, k = case
    fewer = data.draw(st.integers(1, k))
    prefix, direct = topk(logits, k).prefix(fewer), topk(logits, fewer)
    np.testing.assert_array_equal(prefix.classes, direct.classes)
    np.testing.assert_array_equal(prefix.logits, direct.logits)
    assert prefix.k == fewer
    if fewer == logits.shape[-1]:
        assert np.isneginf(prefix.tail).all()
    else:  # what left the head was quantised in steps of 1/16, the direct tail in steps of 1/128
        assert np.abs(prefix.tail - direct.tail).max() <= 1 / 32 + 2 / 256 + 1e-4


@settings(max_examples=40, deadline=None)
@given(cases(), st.sampled_from([0.1, 0.5, 1.0, 3.0]))
def test_full_equals_scipy(case: tuple[Array, int], temperature: float) -> None:
    logits, k = case
    soft = full(logits)
    wanted = log_softmax(soft.logits.astype("f8") / temperature, axis=-1)
    np.testing.assert_allclose(soft.log_probs(temperature), wanted, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(soft.dense(temperature), np.exp(wanted), rtol=1e-3, atol=1e-6)
    assert (soft.tail_mass(temperature) == 0).all()
    np.testing.assert_array_equal(soft.classes[0, 0], np.arange(logits.shape[-1]))
    prefix = soft.prefix(k)
    order = np.argsort(-soft.logits, axis=-1, kind="stable")[..., :k]
    np.testing.assert_array_equal(prefix.classes, order)
    np.testing.assert_array_equal(prefix.logits, np.take_along_axis(soft.logits, order, axis=-1))


def test_a_tail_of_one_class_is_exact_at_every_temperature() -> None:
    logits = np.array([[[2.0, 1.0, -1.5]]], dtype=np.float32)
    for temperature in (1.0, 1.4, 3.0, 30.0):
        np.testing.assert_allclose(
            topk(logits, 2).dense(temperature), softmax(logits / temperature, axis=-1), rtol=1e-5
        )


def test_no_tail_is_a_softmax_over_the_head() -> None:
    logits = np.array([[[2.0, 1.0, -1.5]]], dtype=np.float32)
    soft = topk(logits, 3)
    assert soft.tail_classes == 0
    assert soft.tail_mass(2.0).tolist() == [[0.0]]
    np.testing.assert_allclose(soft.dense(1.4), softmax(logits / 1.4, axis=-1), rtol=1e-5)


def test_tail_none_renormalises_the_head() -> None:
    logits = np.random.RandomState(0).normal(0, 2, (1, 3, 20)).astype(np.float32)
    soft = topk(logits, 4)
    dense = soft.dense(2.0, tail="none")
    head = np.take_along_axis(dense, soft.classes.astype(int), axis=-1)
    np.testing.assert_allclose(head, softmax(soft.logits / 2.0, axis=-1), rtol=1e-5)
    assert (np.sort(dense, axis=-1)[..., :-4] == 0).all()


def test_uniform_tail_leaves_masked_classes_at_zero() -> None:
    masked = (3, 7)
    soft = full(np.random.RandomState(0).normal(0, 2, (1, 3, 20)).astype(np.float32), masked=masked).prefix(5)
    dense = soft.dense(2.0)
    assert soft.tail_classes == 13
    assert (dense[..., list(masked)] == 0).all()
    assert ((dense > 0).sum(axis=-1) == 18).all()
    np.testing.assert_allclose(dense.sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(soft.to().dense(2.0).numpy(), dense, rtol=1e-5)


def test_an_unknown_tail_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="tail 'ghost' has no probability"):
        topk(np.zeros((1, 1, 4)), 2).dense(1.0, tail="ghost")  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.99, 0.5, 0.0, -1.0, float("nan")])
def test_topk_refuses_temperatures_below_one(temperature: float) -> None:
    soft = topk(np.random.RandomState(0).normal(size=(1, 2, 9)), 3)
    for ask in (soft.log_probs, soft.tail_mass, soft.dense, soft.label_log_prob, soft.tail_log_mass):
        with pytest.raises(InvalidInputError, match=r"1 or more.*--encoding full"):
            ask(temperature)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_full_refuses_what_is_no_temperature(temperature: float) -> None:
    soft = full(np.zeros((1, 1, 4), dtype=np.float32))
    for ask in (soft.log_probs, soft.tail_mass, soft.dense, soft.label_log_prob):
        with pytest.raises(InvalidInputError, match="above 0"):
            ask(temperature)


@pytest.mark.parametrize("k", [0, -1, 4])
def test_prefix_refuses_what_is_not_held(k: int) -> None:
    with pytest.raises(InvalidInputError, match="choose 1 to 3"):
        topk(np.zeros((1, 1, 9)), 3).prefix(k)
    with pytest.raises(InvalidInputError, match="choose 1 to 3"):
        full(np.zeros((1, 1, 4), dtype=np.float32), masked=(0,)).prefix(k)


@pytest.mark.parametrize("kind", ["topk", "full"])
def test_label_log_prob_with_one_label_two_and_none(kind: str) -> None:
    logits = np.array([[3.0, 1.0, 0.0, -2.0], [0.5, 2.5, 0.0, 1.0]], dtype=np.float32)
    soft: SoftLabels = topk(logits[None], 2) if kind == "topk" else full(logits[None])
    soft = replace(soft, **{name: value[0] for name, value in vars(soft).items() if isinstance(value, np.ndarray)})
    for temperature in (1.0, 4.0):
        exact = log_softmax(logits.astype("f8") / temperature, axis=-1)
        one = replace(soft, label=np.array([-3.0, np.nan], dtype=np.float32))
        found = one.label_log_prob(temperature)
        assert found.shape == (2,)
        np.testing.assert_allclose(found, [exact[0, 2], np.nan], atol=1 / 32 + 1e-5)
        two = replace(soft, label=np.array([[0.0, -2.0], [-2.0, np.nan]], dtype=np.float32))
        for labels in (two, two.to()):
            found = np.asarray(labels.label_log_prob(temperature))
            np.testing.assert_allclose(found, [[exact[0, 0], exact[0, 1]], [exact[1, 0], np.nan]], atol=1 / 32 + 1e-5)


def test_extreme_rows_stay_finite() -> None:
    """A teacher that is sure by 2000 nats: no NaN, no Inf, and probabilities that sum to one at any temperature."""
    logits = np.full((1, 2, 50), -2000.0)
    logits[0, 0, 3], logits[0, 1, 5] = 0.0, 2000.0
    for k in (1, 2, 49, 50):
        soft = topk(logits, k)
        for temperature in (1.0, 1.5, 3.0, 1000.0):
            assert np.isfinite(soft.log_probs(temperature)).all()
            dense = soft.dense(temperature)
            assert np.isfinite(dense).all()
            np.testing.assert_allclose(dense.sum(axis=-1), 1.0, rtol=1e-5)
            assert dense[0, 0].argmax() == 3


def test_the_tail_never_outgrows_the_last_kept_class() -> None:
    """The sketch ends at -256 nats; below it, n classes still have n times the last kept one's mass at most."""
    logits = np.full((1, 1, 50), -3000.0)
    logits[0, 0, :2] = 0.0, -1000.0
    _, encoded = encode(logits, 2, "high")
    soft = decode(encoded, 50, "high")
    assert soft.logits[0, 0, 1] == -1000.0
    for temperature in (1.0, 1.2, 3.0):
        most = np.log(48) - 1000.0 / temperature + 1 / 16
        assert soft.tail_log_mass(temperature).item() <= most + 1e-3
