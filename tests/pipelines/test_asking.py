"""The study on language: words of a text, path consistency by hand, and a head that knows where asking gains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.objectives.batch import Batch
from kdcache.objectives.objective import Objective
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.studies.asking import Answers, AskHead, accuracy_at, answers_of
from kdcache.pipelines.studies.paths import PathConsistency
from kdcache.pipelines.studies.words import SPLITS, words
from kdcache.pipelines.train.stage import train
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.views.sources import open_data
from tests.kits.texts import SEQUENCE, TEXT, VOCABULARY, Library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def path(library: Library) -> str:
    """A store of the licence in top 6."""
    path = library.folder / "licence.kd"
    extract(library.asked(path))
    return str(path)


@pytest.fixture
def batch(library: Library, path: str) -> Batch:
    """All texts of the licence with their soft labels; the last has padding."""
    (batch,) = Loader(library.data, [Store.open(path)], batch_size=1000, epochs=1)
    return batch


def paths_loss(logits: Tensor, batch: Batch, tau: float = 1.0) -> Tensor:
    return Objective(PathConsistency(tau=tau), w_ce=0.0, w_kd=1.0)(logits, batch)


def test_path_consistency_is_that_of_each_text_by_hand(batch: Batch) -> None:
    """Texts may lie side by side, each with a label at its last token: it has no next state for all that."""
    side_by_side = torch.arange(batch.y.numel()).reshape(batch.y.shape)
    rewards = batch.teachers[0].label_log_prob(1.0)
    batch = replace(batch, y=batch.y.clamp_min(0), mask=rewards.isfinite(), positions=side_by_side)
    assert batch.mask is not None
    logits, tau = torch.randn(*batch.y.shape, VOCABULARY, generator=torch.Generator().manual_seed(0)), 0.5
    squares = []
    for text in range(len(batch.y)):
        for token in range(SEQUENCE - 1):
            if not batch.mask[text, token : token + 2].all():
                continue
            here, after = logits[text, token], logits[text, token + 1]
            value, following = (tau * torch.logsumexp(row / tau, dim=0) for row in (here, after))
            log_pi = (here / tau).log_softmax(dim=0)[batch.y[text, token]]
            squares.append((value - following - rewards[text, token] + tau * log_pi).square())
    assert float(paths_loss(logits, batch, tau)) == pytest.approx(float(torch.stack(squares).mean()), rel=1e-4)


def test_a_student_that_answers_as_the_teacher_has_no_loss(batch: Batch) -> None:
    """Its values are 0: the log-probabilities of all tokens sum to 1."""
    reward = batch.teachers[0].label_log_prob(1.0)
    others = torch.log1p(-reward.exp()) - np.log(VOCABULARY - 1)
    logits = others[..., None].expand(*batch.y.shape, VOCABULARY).clone()
    logits.scatter_(-1, batch.y.clamp_min(0)[..., None], reward[..., None])
    assert float(paths_loss(logits, batch)) < 1e-9
    assert float(paths_loss(logits + 1.0, batch)) < 1e-9  # all values are 1 then, and their difference still 0
    assert float(paths_loss(2.0 * logits, batch)) > 0.1


def answers(rows: int, seed: int, width: int) -> Answers:
    """Tokens where asking gains if two numbers of the hidden state have one sign, and loses nothing otherwise. Of more
    than four the others are sums of the first four."""
    generator = np.random.default_rng(seed)
    numbers = generator.standard_normal((rows, 4))
    gains = (numbers[:, 0] * numbers[:, 1] > 0) & (generator.uniform(size=rows) < 0.8)
    right = ~gains & (generator.uniform(size=rows) < 0.5)
    hidden = numbers @ np.concatenate([np.eye(4), np.random.default_rng(9).standard_normal((4, width - 4))], axis=1)
    return Answers(hidden, generator.uniform(size=rows), right, right | gains)


@pytest.mark.parametrize("width", [4, 80])
def test_the_head_finds_the_tokens_where_asking_gains(width: int) -> None:
    test = answers(4_000, 1, width)
    expected = AskHead.fitted(answers(4_000, 0, width)).expected(test.hidden)
    alone, teacher = test.right.mean(), test.teacher_right.mean()
    assert accuracy_at(test, expected, 0.0) == alone
    assert accuracy_at(test, expected, 1.0) == pytest.approx(teacher)
    best = accuracy_at(test, test.gain, 0.4)
    assert best == pytest.approx(teacher, abs=0.01)
    assert accuracy_at(test, expected, 0.4) - alone > 0.7 * (best - alone)  # of tokens of that sign 80 % gain
    assert accuracy_at(test, test.entropy, 0.4) - alone < 0.5 * (best - alone)


def test_answers_are_those_of_the_student_and_of_the_store(library: Library, path: str, tmp_path: Path) -> None:
    data, store = library.data, Store.open(path)
    summary = train(library.student(tmp_path / "run", epochs=1, val_set={"range": f"0:{len(data.ids)}"}))
    student = answers_of(f"run:{tmp_path / 'run'}@last", path, data)
    counts = data.labels >= 0
    assert student.hidden.shape == (counts.sum(), 12)
    top = np.empty(store.rows, dtype=np.int64)
    top[store.order] = store.read(0, range(store.rows)).top_class
    assert (student.teacher_right == (top == data.labels)[counts]).all()
    assert summary.validation["accuracy"] == pytest.approx(student.right.mean())
    assert (student.entropy > 0).all()
    assert (student.entropy < np.log(VOCABULARY) + 1e-4).all()


def test_words_of_a_file_are_texts_and_splits_lie_apart() -> None:
    given = {"text": str(TEXT), "vocabulary": 100, "sequence": 16}
    train_split, test_split = (open_data(f"{words.__module__}:words", {"split": name, **given}) for name in SPLITS)
    assert not set(train_split.ids) & set(test_split.ids)
    assert train_split.classes == test_split.classes == 100
    assert train_split.sequence == 16
    assert 0.04 < len(test_split) / len(train_split) < 0.06
    tokens = words(**given).tokens
    assert np.bincount(tokens.ravel(), minlength=100)[:99].min() > 0
    assert (train_split.labels.reshape(tokens.shape)[:, :-1] == tokens[:, 1:]).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"split": "dev"}, "split is 'dev'; choose train or test"),
        ({"text": "/nowhere.txt"}, r"/nowhere\.txt cannot be read"),
        ({"text": str(TEXT), "sequence": 4096}, "20 texts of 4096 are the least"),
    ],
)
def test_words_that_are_none_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        words(**given)  # type: ignore[arg-type]


def test_a_machine_without_the_bible_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdcache.pipelines.studies.words.VERSES", ("no-such-program",))
    with pytest.raises(InvalidInputError, match=r"apt install bible-kjv; or name .*text=FILE"):
        words(vocabulary=77)
