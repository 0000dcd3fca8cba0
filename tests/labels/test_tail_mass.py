"""A tail of which the mass at T = 1 alone is known: exact there, refused elsewhere, and dropped at T of 1 or more."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import log_softmax, logsumexp

from kdcache.errors import InvalidInputError
from kdcache.labels.encoding import Choice, LabelSpace
from kdcache.labels.encodings import encoding_of, read_as
from kdcache.labels.reduction import reduce_topk, topk_of_log_probs
from kdcache.labels.topk import TopKEncoding
from kdcache.labels.topk_labels import TopKLabels
from kdcache.objectives.targets import Targets

Array = npt.NDArray[Any]
C, K = 30, 4
SPACE = LabelSpace(C, masked=(3,))
LABELS = np.arange(40)[:, None] % C


def logits_of(seed: int = 0) -> Array:
    logits = np.random.RandomState(seed).normal(0, 2, (40, C)).astype(np.float32)
    logits[:, 3] = -np.inf
    return logits


def stored(packing: str = "plain", *, tail: str = "mass", k: int = K) -> TopKLabels:
    """Rows as a store gives them."""
    encoding = TopKEncoding.model_validate({"k": k, "tail": tail, "packing": packing, "quantisation": "high"})
    fields = encoding.reduce(logits_of(), LABELS, SPACE)
    arrays = encoding.encode({name: values[None] for name, values in fields.items()}, SPACE).arrays
    specs = encoding.arrays(SPACE)
    assert {name: values.shape for name, values in arrays.items()} == {
        name: (1, *spec.front, 40, *spec.back) for name, spec in specs.items()
    }
    by_row = {name: np.moveaxis(values[0], len(specs[name].front), 0) for name, values in arrays.items()}
    return encoding.decode(by_row, SPACE)


def test_packing_is_lossless_and_keeps_one_residual() -> None:
    plain, packed, sketch = stored(), stored("residuals"), stored(tail="sketch")
    assert plain.tail.shape == (40, 1)
    assert np.array_equal(plain.tail, packed.tail)
    assert np.array_equal(plain.tail, sketch.tail[:, :1])
    assert np.array_equal(plain.logits, packed.logits)


def test_at_one_it_is_the_sketch() -> None:
    mass, sketch = stored(), stored(tail="sketch")
    for ask in ("log_probs", "tail_mass", "label_log_prob", "dense"):
        assert np.array_equal(getattr(mass, ask)(1.0), getattr(sketch, ask)(1.0), equal_nan=True)
    student = torch.from_numpy(np.random.RandomState(1).normal(0, 2, (40, C)))
    for tail in ("uniform", "ghost", "none"):
        ones = [
            Targets((soft.to(dtype=torch.float64),), tail=tail).kl_of_logits(student, 1.0) for soft in (mass, sketch)
        ]
        assert torch.equal(ones[0], ones[1])
    exact = log_softmax(logits_of().astype("f8"), axis=1)
    assert np.abs(mass.log_probs(1.0) - np.take_along_axis(exact, mass.classes.astype(np.int64), axis=1)).max() < 0.03


@pytest.mark.parametrize("temperature", [2.0, 1.5, np.float64(4.0), torch.tensor(1.0)])
def test_other_temperatures_are_refused(temperature: Any) -> None:
    soft = stored().to()
    log_q = torch.log_softmax(torch.zeros(40, C), dim=-1)
    targets = Targets((soft,))
    kinds = (lambda t: targets.kl(log_q, t), lambda t: targets.kl_of_logits(log_q, t))
    for ask in (soft.log_probs, soft.tail_mass, soft.label_log_prob, soft.dense, *kinds):
        with pytest.raises(InvalidInputError, match=r"known at T = 1 alone; use T = 1, or drop the tail"):
            ask(temperature)
    with pytest.raises(InvalidInputError, match=r"0.5 was asked for; it must be 1 or more"):
        soft.log_probs(0.5)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_without_a_tail_the_head_is_exact_at_any_temperature(temperature: float) -> None:
    soft = stored().to(dtype=torch.float64)
    head = log_softmax(np.asarray(soft.logits) / temperature, axis=1)
    log_q = torch.log_softmax(torch.from_numpy(np.random.RandomState(1).normal(0, 2, (40, C))), dim=-1)
    q_head = np.take_along_axis(log_q.numpy(), soft.classes.numpy(), axis=1)
    wanted = (np.exp(head) * (head - q_head)).sum(axis=1)
    assert np.allclose(Targets((soft,), tail="none").kl(log_q, temperature), wanted)
    assert np.allclose(Targets((soft, soft), tail="none").kl(log_q, temperature), wanted)
    assert np.allclose(Targets((soft,), tail="none").kl_of_logits(log_q, temperature), wanted)
    with pytest.raises(InvalidInputError, match=r"0.5 was asked for; it must be 1 or more"):
        soft.log_dense(0.5, tail="none")


def test_a_prefix_joins_the_mass() -> None:
    short, direct = stored().prefix(2), stored(k=2)
    assert np.array_equal(short.classes, direct.classes)
    assert short.tail.shape == (40, 1)
    assert np.abs(short.tail - direct.tail).max() < 1 / 64
    rows = stored().reduced(2, LABELS)
    assert np.abs(rows.tail - direct.tail).max() < 1 / 64


def test_entropy_is_the_largest_there_can_be_and_moments_are_refused() -> None:
    soft, dense = stored(), log_softmax(logits_of().astype("f8"), axis=1)
    p = np.exp(dense)
    entropy = -(p * np.where(p > 0, dense, 0.0)).sum(axis=1)
    spread = stored().dense(1.0)
    largest = -(spread * np.log(np.maximum(spread, 1e-30))).sum(axis=1)
    assert np.allclose(soft.entropy(), largest, atol=1e-4)
    assert (soft.entropy() > entropy - 0.02).all()
    for ask in (soft.tail_moments, soft.all_logits, lambda: Targets((soft.to(),)).logits()):
        with pytest.raises(InvalidInputError, match=r"mean of a tail's logits was asked of a tail of which the mass"):
            ask()


def test_log_probabilities_from_outside() -> None:
    """The k best classes and their log-probabilities, in any order, are all that is known of a row."""
    dense = log_softmax(logits_of().astype("f8"), axis=1)
    wanted = reduce_topk(logits_of(), LABELS, K, (3,))
    shuffled = wanted.classes[:, ::-1]
    log_probs = np.take_along_axis(dense, shuffled, axis=1)
    rows = topk_of_log_probs(shuffled, log_probs, LABELS, C - K - 1)
    assert np.array_equal(rows.classes, wanted.classes)
    assert np.allclose(rows.distances, wanted.distances, atol=1e-5)
    assert np.allclose(rows.tail, wanted.tail[:, :1], atol=1e-4)
    kept = (wanted.classes == LABELS).any(axis=1)
    assert kept.any()
    assert np.allclose(rows.label[kept], wanted.label[kept], atol=1e-5)
    assert np.isnan(rows.label[~kept]).all()
    fields = {name: values[None] for name, values in vars(rows).items()}
    encoded = TopKEncoding(k=K, tail="mass", packing="residuals").encode(fields, SPACE)
    assert {name: values.shape for name, values in encoded.arrays.items()} == {
        "classes": (1, 40, K), "gaps": (1, K - 1, 40), "tail": (1, 1, 40), "label": (1, 40),
    }  # fmt: skip
    with np.errstate(invalid="ignore"):  # class 3 is masked: its log-probability is -inf
        known = topk_of_log_probs(shuffled, log_probs, LABELS, C - K - 1, np.take_along_axis(dense, LABELS, axis=1))
    visible = (LABELS != 3)[:, 0]
    assert np.allclose(known.label[visible], wanted.label[visible], atol=1e-5)
    without = topk_of_log_probs(shuffled, log_probs, np.full_like(LABELS, -1), C - K - 1, np.full(LABELS.shape, -2.0))
    assert np.isnan(without.label).all()


def test_a_sure_answer_leaves_some_mass_unless_no_class_is_left() -> None:
    classes, log_probs, label = np.array([[7, 2]]), np.log([[0.25, 0.75]]), np.array([[2]])
    sure = topk_of_log_probs(classes, log_probs, label, C - 2)
    assert (sure.classes.tolist(), sure.label.tolist()) == ([[2, 7]], [[0.0]])
    assert np.allclose(sure.tail, np.log(1e-12 / 0.75))  # so that no loss is infinite
    assert topk_of_log_probs(classes, log_probs, label, 0).tail.tolist() == [[-np.inf]]


def test_the_key_goes_along() -> None:
    mass = TopKEncoding(k=5, tail="mass")
    assert mass.model_dump()["tail"] == "mass"
    assert "tail" not in TopKEncoding(k=5).model_dump()
    assert encoding_of(mass.model_dump()) == mass
    assert TopKEncoding.chosen(Choice(top_k=3), SPACE, like=mass).tail == "mass"
    assert TopKEncoding.narrowed(mass, Choice(top_k=3), SPACE).tail == "mass"
    assert read_as(mass, 3) == TopKEncoding(k=3, tail="mass")
    assert not TopKEncoding.chosen(Choice(top_k=3), SPACE, like=mass).class_means
    with pytest.raises(ValueError, match="class means need logits of the tail"):
        TopKEncoding(k=5, tail="mass", class_means=True)
    for temperature, tail in ((2.0, "uniform"), (0.5, "none"), (0.5, "uniform")):
        with pytest.raises(InvalidInputError, match=r"known at T = 1 alone|must be 1 or more"):
            mass.require_temperature(temperature, tail=tail)
    mass.require_temperature(1.0)
    mass.require_temperature(2.0, tail="none")


def test_one_tail_class_is_refused_too() -> None:
    """Its logit would follow from the mass; one rule for all rows is simpler, and k of all classes has no tail."""
    soft = stored(k=28)
    assert soft.tail_classes == 1
    with pytest.raises(InvalidInputError, match="known at T = 1 alone"):
        soft.log_probs(2.0)
    assert np.allclose(np.exp(logsumexp(replace(soft).log_probs(1.0), axis=1)) + soft.tail_mass(1.0), 1.0, atol=1e-5)
