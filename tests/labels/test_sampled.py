"""Draws are what the specification says, bit for bit; they serve the forward cross-entropy at one temperature alone."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import xxhash

from kdcache.errors import BadLogitsError, InvalidInputError
from kdcache.labels.encoding import Choice, LabelSpace
from kdcache.labels.encodings import chosen, encoding_of, read_as
from kdcache.labels.full import FullEncoding
from kdcache.labels.sampled import SampledEncoding, drawn, probabilities, uniforms
from kdcache.labels.sampled_labels import SampledLabels
from kdcache.labels.topk import TopKEncoding
from kdcache.objectives.divergences import JSD
from kdcache.objectives.targets import Targets, in_dtype, kl_rows
from kdcache.store.plan import draw_words

Array = npt.NDArray[Any]
SPACE = LabelSpace(30, masked=(3, 17))
WORDS = draw_words(7, np.arange(40), 2)


def logits_of(rows: int = 40, classes: int = 30, seed: int = 0) -> Array:
    return np.random.RandomState(seed).normal(0, 3, (rows, classes)).astype(np.float32)


def soft_labels(logits: Array, draws: int, temperature: float, space: LabelSpace = SPACE) -> SampledLabels:
    """Rows as a store gives them; every third row has no label, the second has a masked one."""
    encoding = SampledEncoding(draws=draws, draw_temperature=temperature)
    labels = np.arange(len(logits))[:, None] % 5
    labels[::3], labels[1] = -1, 17
    words = draw_words(7, np.arange(len(logits)), 2)
    fields = encoding.reduce(logits, labels, space) | encoding.draw(logits, words, space)
    arrays = encoding.encode({name: values[None] for name, values in fields.items()}, space).arrays
    return encoding.decode({name: values[0] for name, values in arrays.items()}, space)


def by_hand(logits: Array, temperature: float, index: int, draws: int) -> list[int]:
    """The ids of one row from the words of the specification, in Python's integers."""
    visible = [c for c in range(len(logits)) if c not in SPACE.masked]
    z = logits.astype("f8") - max(logits[c] for c in visible)
    powers = np.array([np.exp(z[c] / temperature) if c in visible else 0.0 for c in range(len(logits))])
    weights = [round(float(p) * 2**52) for p in powers / powers.sum()]
    word = xxhash.xxh3_64_intdigest(struct.pack("<QQQ", 7, index, 2) + b"draw")
    generator, ids, total = np.random.RandomState([word & 0xFFFFFFFF, word >> 32]), [], sum(weights)
    for uniform in generator.random_sample(draws).tolist():
        place, c = min(int(uniform * total), total - 1), 0
        while place >= weights[c]:
            place, c = place - weights[c], c + 1
        ids.append(c)
    return sorted(ids)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_draws_by_the_words_of_the_specification(temperature: float) -> None:
    logits = logits_of()
    got = SampledEncoding(draws=20, draw_temperature=temperature).draw(logits, WORDS, SPACE)["draws"]
    assert got.dtype == np.int32
    assert got.tolist() == [by_hand(row, temperature, index, 20) for index, row in enumerate(logits)]
    assert not np.isin(got, SPACE.masked).any()


def test_torch_draws_the_same_ids_and_rows_do_not_depend_on_their_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, logits = SampledEncoding(draws=20, draw_temperature=2.0), logits_of()
    whole = encoding.draw(logits, WORDS, SPACE)["draws"]
    assert np.array_equal(encoding.draw(torch.from_numpy(logits), WORDS, SPACE)["draws"].numpy(), whole)
    monkeypatch.setattr("kdcache.labels.sampled.PIECE", 7 * 30)
    assert np.array_equal(encoding.draw(torch.from_numpy(logits), WORDS, SPACE)["draws"].numpy(), whole)
    assert np.array_equal(encoding.draw(logits[9:10], WORDS[9:10], SPACE)["draws"][0], whole[9])
    views = encoding.draw(logits.reshape(4, 10, 30), WORDS.reshape(4, 10), SPACE)["draws"]
    assert np.array_equal(views.reshape(40, 20), whole)


def test_the_draw_itself_is_exact_at_its_ends() -> None:
    """A uniform next to 1 stays within the classes; a class of no weight is never met, whatever the uniform."""
    probs = np.array([[0.0, 0.25, 0.0, 0.75, 0.0]])
    ends = np.array([[0.0, np.nextafter(0.25, 0), 0.25, np.nextafter(1, 0)]])
    assert drawn(probs, ends).tolist() == [[1, 1, 3, 3]]
    assert drawn(torch.from_numpy(probs), torch.from_numpy(ends)).tolist() == [[1, 1, 3, 3]]


def test_uniforms_are_frozen() -> None:
    assert uniforms(np.array([0xA70620E255DEB039], dtype=np.uint64), 2).tolist() == [
        [0.4034936319633332, 0.6757327566677913]
    ]
    assert int(draw_words(7, np.array([1234]), 3)[0]) == 0x26691636987CEAD8


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_cross_entropy_is_unbiased_with_its_gradient(temperature: float) -> None:
    """Over 4,000 draws of each row the loss and its gradient are those of all logits, within 5 standard errors."""
    logits = logits_of(8)
    soft = in_dtype(soft_labels(logits, 4000, temperature).to(), torch.float64)
    p = torch.from_numpy(probabilities(logits, temperature, SPACE.masked))
    student = torch.from_numpy(logits_of(8, seed=1)).double().requires_grad_()
    rows = Targets((soft,)).kl_of_logits(student, temperature, tau=temperature)
    log_q = torch.log_softmax(student / temperature, dim=-1)
    exact = -(p * log_q).sum(dim=-1)
    deviation = ((p * log_q.square()).sum(dim=-1) - exact.square()).sqrt() / 4000**0.5
    assert ((rows - exact).abs() < 5 * deviation).all()
    (gradient,) = torch.autograd.grad(rows.sum(), student)
    wanted = (log_q.exp() - p) / temperature
    assert (gradient - wanted).abs().max() < 5 * 0.5 / 4000**0.5 / temperature
    entropy = -torch.where(p > 0, p * p.clamp_min(1e-300).log(), 0.0).sum(dim=-1)
    kl = kl_rows(p.clamp_min(1e-300).log(), log_q)
    assert torch.allclose(exact - entropy, kl)  # what the draws give is KL and a constant


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_closed_form_is_the_plain_one(dtype: torch.dtype) -> None:
    """Value and gradient, also where ids repeat; 3 draws of 30 classes, 200 of them and more rows than a piece."""
    for draws, rows in ((3, 40), (200, 40), (5, 9000)):
        soft = in_dtype(soft_labels(logits_of(rows), draws, 2.0).to(), dtype)
        student = torch.from_numpy(logits_of(rows, seed=1)).to(dtype).requires_grad_()
        scale = torch.linspace(0.5, 2.0, rows, dtype=dtype)
        results = []
        for tau in (1.0, 2.0):
            targets = Targets((soft,))
            fused = targets.kl_of_logits(student, 2.0, tau=tau)
            plain = targets.kl(torch.log_softmax(student / tau, dim=-1), 2.0)
            assert torch.allclose(fused, plain, rtol=1e-5, atol=1e-5)
            results.append([torch.autograd.grad((scale * values).sum(), student)[0] for values in (fused, plain)])
        for one, other in results:
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_labels_hold_the_loss_at_the_draw_temperature() -> None:
    logits = logits_of()
    soft = soft_labels(logits, 5, 2.0)
    exact = np.log(np.maximum(probabilities(logits, 2.0, SPACE.masked), 1e-300))
    labels = np.arange(40) % 5
    known = (np.arange(40) % 3 != 0) & (np.arange(40) != 1) & (labels != 3)
    stored = soft.label_log_prob(2.0)
    assert np.isnan(stored[~known]).all()
    assert np.abs(stored - exact[np.arange(40), labels])[known].max() <= 1 / 128 + 1e-5
    mixed = SampledEncoding(draws=2).reduce(logits, np.stack([labels, labels], axis=1), SPACE)["label_loss"]
    assert mixed.shape == (40, 2)


def test_a_label_that_is_too_far_is_clamped_and_bad_ids_are_refused() -> None:
    encoding, space = SampledEncoding(draws=2, draw_temperature=0.01), LabelSpace(3)
    logits = np.array([[0.0, 50.0, 49.0]], dtype=np.float32)
    fields = encoding.reduce(logits, np.array([[0]]), space) | encoding.draw(logits, WORDS[:1], space)
    encoded = encoding.encode({name: values[None] for name, values in fields.items()}, space)
    assert (encoded.arrays["label"].tolist(), encoded.clamped.tolist()) == ([[65534]], [[True]])
    assert encoding.at_limit({"label": encoded.arrays["label"][0]}, 2).tolist() == [True]
    with pytest.raises(BadLogitsError, match="class id 3 does not fit 3 classes"):
        encoding.encode({**fields, "draws": np.array([[3, 3]])}, space)


UNKNOWN: dict[str, Callable[[SampledLabels], Any]] = {
    "log_probs": lambda soft: soft.log_probs(2.0),
    "dense": lambda soft: soft.dense(2.0),
    "dense without a tail": lambda soft: soft.dense(2.0, tail="none"),
    "tail mass": lambda soft: soft.tail_mass(2.0),
    "tail moments": lambda soft: soft.tail_moments(),
    "tail mean": lambda soft: soft.tail_mean(),
    "normaliser": lambda soft: soft.log_normalizer(2.0),
    "entropy": lambda soft: soft.entropy(),
    "logits": lambda soft: soft.all_logits(),
    "top class": lambda soft: soft.top_class,
    "best": lambda soft: soft.best(1),
    "prefix": lambda soft: soft.prefix(1),
    "reduced": lambda soft: soft.reduced(1, np.zeros((1, 1))),
    "the other KL": lambda soft: Targets((soft.to(),), tail="ghost").divergence(JSD(), torch.zeros(40, 30), 2.0),
    "an ensemble": lambda soft: Targets((soft.to(), soft.to())).kl(torch.zeros(40, 30), 2.0),
    "a power sum": lambda soft: Targets((soft.to(),)).power_sum(2.0),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_all_else_is_refused_and_names_the_temperature(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"5 draws at T = 2: they serve the forward cross-entropy"):
        UNKNOWN[name](soft_labels(logits_of(), 5, 2.0))


@pytest.mark.parametrize("temperature", [1.0, 4, torch.tensor(2.0), torch.full((40,), 2.0)])
def test_other_temperatures_are_refused(temperature: Any) -> None:
    soft = soft_labels(logits_of(), 5, 2.0).to()
    for ask in (lambda: soft.label_log_prob(temperature), lambda: Targets((soft,)).kl(torch.zeros(40, 30), temperature),
                lambda: Targets((soft,)).kl_of_logits(torch.zeros(40, 30), temperature)):  # fmt: skip
        with pytest.raises(InvalidInputError, match=r"known at T = 2 alone; give --temperature 2"):
            ask()


def test_rows_are_taken_and_flattened() -> None:
    soft = soft_labels(logits_of(), 5, 2.0)
    some = soft.take(np.array([4, 1]))
    assert np.array_equal(some.draws, soft.draws[[4, 1]])
    assert soft.map(lambda values: values.reshape(8, 5, *values.shape[1:])).flat().draws.shape == (40, 5)
    counted = soft_labels(logits_of(), 20, 1.0)
    assert [
        sorted(np.repeat(ids, counts).tolist()) for ids, counts in zip(counted.draws, counted.counts, strict=True)
    ] == counted.draws.tolist()
    assert np.array_equal(counted.to().counts.numpy(), counted.counts)
    ids, shares, tail = soft_labels(logits_of(), 20, 1.0).to().shown()
    assert tail is None
    assert torch.allclose(shares.sum(dim=-1), torch.ones(40))
    assert shares.shape == ids.shape


def test_choices() -> None:
    assert chosen("sampled", Choice(draws=20), SPACE) == SampledEncoding(draws=20)
    like = SampledEncoding(draws=20, draw_temperature=3.0)
    assert chosen("sampled", Choice(top_k=10), SPACE, like=like) == like
    assert like.model_dump() == {
        "name": "sampled", "features": 0, "head": 0, "draws": 20, "draw_temperature": 3.0,
    }  # fmt: skip
    assert encoding_of(like.model_dump()) == like
    with pytest.raises(InvalidInputError, match=r"no draws at T = 1.0 were asked for; give --draws"):
        chosen("sampled", Choice(), SPACE, like=TopKEncoding(k=3))
    for name in ("topk", "full"):
        with pytest.raises(InvalidInputError, match=f"are of --encoding sampled, and {name} was chosen"):
            chosen(name, Choice(top_k=3, draws=5), SPACE)
    with pytest.raises(InvalidInputError, match=r"--top-k was asked of a store that holds 20 draws at T = 3"):
        read_as(like, 5)


def test_draws_are_made_of_all_logits_alone() -> None:
    like = SampledEncoding(draws=20, draw_temperature=3.0)
    assert SampledEncoding.narrowed(FullEncoding(), Choice(draws=4), SPACE) == SampledEncoding(draws=4)
    assert SampledEncoding.narrowed(like, Choice(), SPACE) == like
    with pytest.raises(InvalidInputError, match=r"draws were asked of a store that holds top 3; what was not kept"):
        SampledEncoding.narrowed(TopKEncoding(k=3), Choice(draws=4), SPACE)
    with pytest.raises(InvalidInputError, match=r"4 draws at T = 3 were asked of a store that holds 20 draws at T = 3"):
        SampledEncoding.narrowed(like, Choice(draws=4), SPACE)
    with pytest.raises(InvalidInputError, match=r"top-k was asked of a store that holds 20 draws at T = 3"):
        TopKEncoding.narrowed(like, Choice(top_k=2), SPACE)
    with pytest.raises(InvalidInputError, match=r"all logits were asked of a store that holds 20 draws"):
        FullEncoding.narrowed(like, Choice(), SPACE)


@pytest.mark.parametrize("record", [
    {"draws": 0}, {"draws": -1}, {"draws": None}, {}, {"draws": 2.5}, {"draws": 5, "draw_temperature": 0},
    {"draws": 5, "draw_temperature": float("inf")}, {"draws": 5, "draw_temperature": float("nan")},
    {"draws": 5, "k": 3}, {"draws": 5, "tail": "mass"},
])  # fmt: skip
def test_hostile_records_are_refused(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"draws|draw_temperature|k|tail"):
        encoding_of({"name": "sampled", "features": 0, "head": 0, **record})
