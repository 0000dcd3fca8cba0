"""Teachers of texts: what is refused before block 0, and networks that do more after their head than to answer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdcache.errors import InvalidInputError, TeacherSuspectError
from kdcache.networks.forward_memory import LiveBytes
from kdcache.networks.preparation import Preparation
from kdcache.networks.text_teacher import CHUNK_BYTES, TextTeacher
from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from tests.kits.texts import VOCABULARY, Library, Reader, reader, trained_reader

HERE = "tests.networks.test_text_teachers"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("library"))


class Capped(Reader):
    """A language model that does more after its head than to answer."""

    def forward(self, tokens: Tensor) -> Tensor:
        return 8.0 * torch.tanh(super().forward(tokens) / 8.0)


class Ahead(Reader):
    """A network that reads the whole text before it answers."""

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.embedding(tokens)
        return self.head(self.cell(values)[0] + values.mean(dim=1, keepdim=True))


class NextOne(Reader):
    """A network that reads one token too many."""

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.embedding(tokens)
        return self.head(self.cell(values)[0] + torch.roll(values, -1, dims=1))


class Unsteady(Reader):
    """A network whose dropout is always on."""

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(nn.functional.dropout(self.cell(self.embedding(tokens))[0], 0.5))


class Probable(Reader):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).softmax(dim=-1)


def capped() -> Capped:
    return Capped(VOCABULARY, 24)


def ahead() -> Ahead:
    return Ahead(VOCABULARY, 24)


def next_one() -> NextOne:
    return NextOne(VOCABULARY, 24)


def unsteady() -> Unsteady:
    return Unsteady(VOCABULARY, 24)


def probable() -> Probable:
    return Probable(VOCABULARY, 24)


def test_logits_that_are_changed_after_the_head_are_taken_whole(library: Library, tmp_path: Path) -> None:
    summary = extract(library.asked(tmp_path / "a.kd", teacher=f"{HERE}:capped", encoding="full"))
    assert any("does more after its last linear layer" in note for note in summary.notes)
    network = capped()
    network.load_state_dict(trained_reader(library.tokenizer).state_dict())
    with torch.inference_mode():
        logits = network(torch.from_numpy(library.data.samples.tokens).long()).flatten(0, 1)
    store = Store.open(tmp_path / "a.kd")
    counted = np.flatnonzero(store.labels >= 0)
    expected = logits[torch.from_numpy(store.order[counted])].log_softmax(dim=1).numpy()
    assert np.abs(store.read(0, counted).log_probs(1.0) - expected).max() < 0.02


@pytest.mark.parametrize(
    ("teacher", "error"),
    [
        ("ahead", r"otherwise where later tokens are others: it looks ahead, and its answer holds the label"),
        ("next_one", r"otherwise where later tokens are others: it looks ahead"),
        ("unsteady", r"(it looks ahead|in a batch of one text)"),
    ],
)
def test_a_teacher_of_more_than_the_tokens_before_is_refused(
    library: Library, tmp_path: Path, teacher: str, error: str
) -> None:
    with pytest.raises(TeacherSuspectError, match=error):
        extract(library.asked(tmp_path / "a.kd", teacher=f"{HERE}:{teacher}", min_accuracy=0.0))
    assert not (tmp_path / "a.kd").exists()


def test_what_does_not_answer_this_language_is_refused(library: Library, tmp_path: Path) -> None:
    asked = library.asked(tmp_path / "a.kd")
    with pytest.raises(TeacherSuspectError, match=r"top-1 accuracy on the next of [\d,]+ tokens is 0\.0\d+, below"):
        extract(asked.model_copy(update={"weights": ""}))
    with pytest.raises(InvalidInputError, match=r"the teacher answers probabilities"):
        extract(asked.model_copy(update={"teacher": f"{HERE}:probable"}))
    with pytest.raises(InvalidInputError, match=r"the teacher does not take texts of 32 tokens"):
        extract(asked.model_copy(update={"teacher": "kdcache.networks:convnet", "weights": ""}))
    with pytest.raises(InvalidInputError, match=r"texts of 32 tokens, .*: index out of range .* of this vocabulary"):
        extract(asked.model_copy(update={"teacher_set": {"num_classes": 300}, "weights": ""}))
    assert not (tmp_path / "a.kd").exists()


def test_logits_of_all_tokens_never_stand_whole() -> None:
    """At 128,000 ids those of one text of 512 tokens would take 262 MB."""
    teacher = TextTeacher(reader(128_000, 8), preparation=Preparation((), (), "cpu"))
    tokens = teacher.prepared(torch.zeros(1, 512, dtype=torch.int32))
    next(teacher.chunks(tokens))  # which tries on a few tokens whether the head can be split off
    rows = 0
    with LiveBytes() as live:
        for first, logits in teacher.chunks(tokens):
            assert first == rows
            rows += len(logits)
            del logits
    assert rows == 512
    assert live.peak < 2.2 * CHUNK_BYTES
