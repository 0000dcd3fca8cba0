"""Verses as rows: each is numbered, cut and padded as said, and has the group of its book."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kdcache.errors import InvalidInputError
from kdcache.pipelines.studies import verses as module
from kdcache.pipelines.studies.verses import GROUPS, Reader, book_of, numbered_verses, verses

LINES = [
    "Ge1:1 And God said, And it was so.",
    "1Sm3:4 And Samuel",
    "Rev22:21 Amen.",
    "Psa1:1 and and and and and and and and",
    "Mal4:6 said",
]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five verses in the place of the Bible, of which the last is for tests."""
    monkeypatch.setattr(module, "bible_lines", lambda data: LINES)
    numbered_verses.cache_clear()


@pytest.mark.usefixtures("few")
def test_rows_are_the_words_of_verses_and_their_groups() -> None:
    train, test = verses(vocabulary=5, words=6), verses("test", vocabulary=5, words=6)
    assert [len(train), len(test)] == [4, 1]
    groups = list(GROUPS)
    assert [groups[label] for label in train.labels] == ["law", "history", "general letters", "poetry"]
    assert groups[test[0][1]] == "minor prophets"
    # the commonest are "and" (2), then "said" and "." of two each (3 and 4); others are 1, and 0 is nothing
    rows = [train[index][0].flatten().tolist() for index in range(4)]
    assert rows == [[2, 1, 3, 1, 2, 1], [2, 1, 0, 0, 0, 0], [1, 4, 0, 0, 0, 0], [2, 2, 2, 2, 2, 2]]
    assert test[0][0].dtype == torch.float32
    assert test[0][0].shape == (1, 1, 6)


@pytest.mark.usefixtures("few")
def test_the_mean_of_a_verse_counts_its_words_alone() -> None:
    """Zeros behind a verse change neither the mean word vector nor, for the words before them, the answer's parts."""
    torch.manual_seed(0)
    network = Reader(vocabulary=5, width=3, units=2, classes=8)
    seen: list[torch.Tensor] = []
    network.words.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    assert network(verses(vocabulary=5, words=6)[1][0][None]).shape == (1, 8)
    assert torch.equal(seen[0][0], network.embedding.weight[[2, 1]].mean(0))


def test_what_is_no_split_or_book_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="split is 'dev'; choose train or test"):
        verses("dev")
    with pytest.raises(InvalidInputError, match=r"'Tobit1:1' is in no book that is known; they are Ge, Exo"):
        book_of("Tobit1:1")


def test_a_machine_without_the_bible_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdcache.pipelines.studies.words.VERSES", ("no-such-program",))
    numbered_verses.cache_clear()
    with pytest.raises(InvalidInputError, match=r"data verses: the program bible is not here.*apt install bible-kjv$"):
        verses(words=33)


def test_the_bible_has_its_verses_in_eight_groups(bible: str) -> None:
    assert Path(bible).is_file()
    numbered_verses.cache_clear()
    parts = [verses(split) for split in ("train", "test")]
    counts = np.bincount(np.concatenate([part.labels for part in parts]), minlength=8)
    assert counts.sum() == 31_102  # of the King James Bible
    assert counts[4] == 1_050  # of the twelve minor prophets
    assert max(float(part.images.max()) for part in parts) == 3_999
