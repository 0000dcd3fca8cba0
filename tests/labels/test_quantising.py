"""encoding: the bounds that its docstring states, over random logits and over a real teacher's."""

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from kdcache.errors import BadLogitsError
from kdcache.labels.encoding import Encoded
from kdcache.labels.quantising import GAPS_A_NAT, NO_LABEL, NO_TAIL, decode_label, decode_logits, decode_tail
from kdcache.labels.reduction import TopK, centre, reduce_topk
from kdcache.labels.topk import TopKEncoding
from kdcache.labels.topk_labels import TopKLabels
from tests.kits.encoding import encode_full, encode_topk

Array = npt.NDArray[Any]
QUANTISATIONS = ["default", "high"]


def encode(logits: Array, k: int, quantisation: str = "default") -> tuple[TopK, Encoded]:
    """Logits [V, N, C] without labels, reduced and quantised."""
    rows = reduce_topk(logits, np.full((*logits.shape[:-1], 1), -1), k)
    encoding = TopKEncoding.model_validate({"k": k, "quantisation": quantisation})
    return rows, encode_topk(rows, encoding, logits.shape[-1])


def decode(encoded: Encoded, classes: int, quantisation: str = "default") -> TopKLabels:
    arrays = encoded.arrays
    return TopKLabels(
        classes=arrays["classes"],
        logits=decode_logits(arrays["classes"], arrays.get("gaps"), quantisation),
        tail=np.moveaxis(decode_tail(arrays["tail"]), -2, -1),
        label=decode_label(arrays["label"]),
        num_classes=classes,
    )


def exact_buckets(logits: Array, ids: Array, temperature: float) -> tuple[Array, Array]:
    """Exact log-probabilities f64 of the classes `ids` [..., K], and of all the others together [...]."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= logsumexp(scaled, axis=-1, keepdims=True)
    head = np.take_along_axis(scaled, ids.astype(np.int64), axis=-1)
    rest = scaled.copy()
    np.put_along_axis(rest, ids.astype(np.int64), -np.inf, axis=-1)
    with np.errstate(divide="ignore"):
        return head, logsumexp(rest, axis=-1)


def kl_added(logits: Array, soft: TopKLabels, temperature: float) -> Array:
    """KL(exact || decoded) f64 of each row, over the k kept classes and one bucket for the tail."""
    head, rest = exact_buckets(logits, soft.classes, temperature)
    f64 = soft.wide()
    log_q, log_tail = f64.log_probs(temperature), f64.tail_log_mass(temperature) - f64.log_normalizer(temperature)
    total = (np.exp(head) * (head - log_q)).sum(axis=-1)
    present = np.isfinite(rest)
    return total + np.where(present, np.exp(rest) * (np.where(present, rest, 0) - np.where(present, log_tail, 0)), 0.0)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, int, str]:
    """Logits [V, N, C], k, quantisation: any C to 100,000, ties, gaps of 40 and 2000 nats, tails of 0 and 1 classes."""
    classes = draw(st.one_of(st.integers(2, 40), st.sampled_from([1000, 100_000])))
    k = draw(
        st.one_of(st.integers(1, min(classes, 30)), st.sampled_from([classes, classes - 1]).filter(lambda k: k < 50))
    )
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 5)), classes)
    rng = np.random.RandomState(draw(st.integers(0, 2**31)))
    logits = rng.normal(0, draw(st.sampled_from([0.0, 0.5, 3.0, 8.0])), shape)
    if draw(st.booleans()):
        logits = np.round(logits)
    logits[:, 0, rng.randint(classes)] += draw(st.sampled_from([0.0, 40.0, 2000.0]))
    logits[:, -1, rng.randint(classes)] -= draw(st.sampled_from([0.0, 40.0, 2000.0]))
    dtype = draw(st.sampled_from(["float16", "float32", "float64"]))
    return logits.astype(dtype), k, draw(st.sampled_from(QUANTISATIONS))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_round_trip_within_half_a_step(case: tuple[Array, int, str]) -> None:
    logits, k, quantisation = case
    classes = logits.shape[-1]
    rows, encoded = encode(logits, k, quantisation)
    soft = decode(encoded, classes, quantisation)
    assert encoded.arrays["classes"].dtype == ("uint16" if classes <= 65_536 else "uint32")
    assert ("gaps" in encoded.arrays) == (k > 1)
    np.testing.assert_array_equal(soft.classes, rows.classes)
    error = np.abs(soft.logits + rows.distances)
    half = 0.5 / GAPS_A_NAT[quantisation]
    assert (error[~encoded.clamped] <= half + 1e-9).all()
    assert (error[encoded.clamped].max(axis=-1) > half).all()  # clamped says exactly which rows are worse
    assert (np.diff(soft.logits, axis=-1) <= 0).all()
    if k == classes:
        assert (encoded.arrays["tail"] == NO_TAIL).all()
        assert np.isneginf(soft.tail).all()
    else:
        inside = rows.tail > -255.0
        assert (np.abs(soft.tail - rows.tail)[inside] <= 1 / 256 + 1e-5).all()
        assert (soft.tail[~inside] < -254.0).all()


@settings(max_examples=100, deadline=None)
@given(cases(), st.sampled_from([1.0, 2.0, 4.0]))
def test_kl_of_every_row_is_within_hoeffdings_bound(case: tuple[Array, int, str], temperature: float) -> None:
    logits, k, quantisation = case
    _, encoded = encode(logits, k, quantisation)
    soft = decode(encoded, logits.shape[-1], quantisation)
    # The tail has one class or its own sketch at these temperatures; its step is finer than that of the gaps at 1/16.
    widest = max(1 / GAPS_A_NAT[quantisation], 1 / 128)
    bound = widest**2 / 8
    added = kl_added(logits, soft, temperature)[~encoded.clamped]
    assert (added >= -1e-9).all()
    assert (added <= bound + 1e-9).all()


def test_one_huge_gap_does_not_shift_the_rest() -> None:
    distances = np.array([0.0, 40.0, 41.0, 42.0, 43.0, 44.0])
    _, encoded = encode(-distances[None, None], 6)
    logits = decode(encoded, 6).logits[0, 0]
    assert encoded.clamped.all()
    # 255 steps of 1/16 at a time until the running sum has caught up; the last three are exact again.
    np.testing.assert_array_equal(logits, [0.0, -15.9375, -31.875, -42.0, -43.0, -44.0])


def test_high_precision_holds_forty_nats() -> None:
    _, encoded = encode(np.array([[[0.0, -40.0, -1000.0, -5000.0]]]), 4, "high")
    np.testing.assert_array_equal(decode(encoded, 4, "high").logits[0, 0], [0.0, -40.0, -1000.0, -1000.0 - 65_535 / 64])
    assert encoded.clamped.all()


def test_errors_of_a_thousand_gaps_never_add_up() -> None:
    """Gaps of .49 of a step round to 0 one by one; against the running sum every logit stays within half a step."""
    logits = -np.arange(1000)[None, None] * 0.49 / 16
    _, encoded = encode(logits, 1000)
    assert not encoded.clamped.any()
    assert np.abs(decode(encoded, 1000).logits - logits).max() <= 1 / 32


def test_labels_in_steps_and_none() -> None:
    label = np.array([[[0.0], [1.0], [3.1415], [np.nan], [1023.9], [2000.0]]])
    rows = TopK(np.zeros((1, 6, 1), int), np.zeros((1, 6, 1)), np.zeros((1, 6, 3)), label)
    encoded = encode_topk(rows, TopKEncoding(k=1), 10)
    stored = encoded.arrays["label"]
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, [[0, 64, 201, NO_LABEL, 65530, NO_LABEL - 1]])
    assert encoded.clamped.tolist() == [[False, False, False, False, False, True]]
    decoded = decode_label(stored)
    assert np.isnan(decoded[0, 3])
    assert np.abs(decoded[0, :3] + label[0, :3, 0]).max() <= 1 / 128


def test_two_labels_keep_their_axis() -> None:
    rows = reduce_topk(np.zeros((2, 3, 4), dtype="f4"), np.zeros((2, 3, 2), dtype=int), 2)
    assert encode_topk(rows, TopKEncoding(k=2), 4).arrays["label"].shape == (2, 3, 2)


def test_class_ids_that_do_not_fit_are_refused() -> None:
    rows, _ = encode(np.zeros((1, 1, 12)), 12)
    with pytest.raises(BadLogitsError, match="class id 11 does not fit 10"):
        encode_topk(rows, TopKEncoding(k=12), 10)


def test_full_keeps_masked_classes_apart_from_low_ones() -> None:
    logits = np.array([[[5.0, 4.0, -1e6, 123.0], [1.0, 0.5, 0.25, 0.0]]], dtype=np.float32)
    encoded = encode_full(centre(logits, (3,)))
    stored = encoded.arrays["logits"]
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored, [[[0, -1, -65504, -np.inf], [0, -0.5, -0.75, -np.inf]]])
    assert encoded.clamped.tolist() == [[True, False]]


@settings(max_examples=50, deadline=None)
@given(cases())
def test_full_is_f16_of_the_distance_to_the_top(case: tuple[Array, int, str]) -> None:
    logits, _, _ = case
    centred = logits.astype("f8") - logits.astype("f8").max(axis=-1, keepdims=True)
    stored = encode_full(centre(logits)).arrays["logits"].astype("f8")
    assert (np.abs(stored - centred) <= np.abs(centred) * 2.0**-11 + 4e-6).all()


def test_mean_kl_on_a_real_teacher(real_logits: Array, subtests: pytest.Subtests) -> None:
    logits = real_logits[None]
    for (quantisation, mean), k in product([("default", 1e-4), ("high", 1e-5)], [1, 10, 20]):
        _, encoded = encode(logits, k, quantisation)
        soft = decode(encoded, 1000, quantisation)
        assert encoded.clamped.mean() <= 0.001
        for temperature in (1.0, 2.0, 4.0):
            with subtests.test(quantisation=quantisation, k=k, temperature=temperature):
                assert kl_added(logits, soft, temperature).mean() <= mean


def test_tail_mass_of_every_real_row(real_logits: Array, subtests: pytest.Subtests) -> None:
    logits = real_logits[None]
    for quantisation, k in product(QUANTISATIONS, [5, 10, 20, 50]):
        soft = decode(encode(logits, k, quantisation)[1], 1000, quantisation)
        for temperature in (1.0, 1.5, 2.0, 4.0):
            with subtests.test(quantisation=quantisation, k=k, temperature=temperature):
                _, rest = exact_buckets(logits, soft.classes, temperature)
                off = np.abs(soft.tail_mass(temperature) - np.exp(rest))
                assert off.max() <= 0.01
                assert np.exp(rest).max() > 0.3  # there is a tail to be wrong about
