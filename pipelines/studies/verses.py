"""Verses of the King James Bible as rows: words and marks by number, the class is the group of books it is from."""

import re
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.pipelines.studies.words import SPLITS, WORD, Ids, bible_lines, known_words

GROUPS = {  # of books, as the program `bible` writes their names
    "law": "Ge Exo Lev Num Deu",
    "history": "Josh Jdgs Ruth 1Sm 2Sm 1Ki 2Ki 1Chr 2Chr Ezra Neh Est",
    "poetry": "Job Psa Prv Eccl SSol",
    "major prophets": "Isa Jer Lam Eze Dan",
    "minor prophets": "Hos Joel Amos Obad Jonah Mic Nahum Hab Zep Hag Zec Mal",
    "gospels and Acts": "Mat Mark Luke John Acts",
    "letters of Paul": "Rom 1Cor 2Cor Gal Eph Phi Col 1Th 2Th 1Tim 2Tim Titus Phmn Heb",
    "general letters": "Jas 1Pet 2Pet 1Jn 2Jn 3Jn Jude Rev",
}
GROUP_OF = {book: number for number, books in enumerate(GROUPS.values()) for book in books.split()}
BOOK = re.compile(r"\d?[A-Za-z]+")
NOTHING, OTHER = 0, 1  # the numbers of no word, and of a word that is not among the commonest
EVERY = 5  # one verse of so many is for tests


class Verses:
    """Rows [1, 1, words] f32 of word numbers, which f32 holds exactly: the commonest words and marks are 2 to
    vocabulary - 1, a longer verse is cut, a shorter one ends in zeros. Every fifth verse is for tests."""

    def __init__(self, split: str, vocabulary: int, words: int) -> None:
        if split not in SPLITS:
            raise InvalidInputError(f"data verses: split is {split!r}; choose {' or '.join(SPLITS)}")
        numbers, groups = numbered_verses(vocabulary, words)
        verses = np.arange(len(groups))
        chosen = verses[(verses % EVERY == EVERY - 1) == (split == "test")]
        self.images = torch.from_numpy(numbers[chosen].astype(np.float32))[:, None, None]
        self.labels = groups[chosen]
        self.class_names = list(GROUPS)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


def verses(split: str = "train", vocabulary: int = 4000, words: int = 32) -> Verses:
    """The data set, as `--data kdcache.pipelines.studies.verses:verses` names it."""
    return Verses(split, vocabulary, words)


@lru_cache(maxsize=2)  # both splits are parts of one text
def numbered_verses(vocabulary: int, words: int) -> tuple[Ids, Ids]:
    """The word numbers [Q, words] and groups of books [Q] of all verses, in their order."""
    lines = [line.partition(" ") for line in bible_lines("verses")]
    texts = [WORD.findall(text.lower()) for _, _, text in lines]
    known = known_words([word for text in texts for word in text], vocabulary - 2)
    numbers = np.full((len(texts), words), NOTHING, dtype=np.int32)
    for row, text in zip(numbers, texts, strict=True):
        row[: len(text)] = [known[word] + 2 if word in known else OTHER for word in text[:words]]
    return numbers, np.array([GROUP_OF[book_of(place)] for place, _, _ in lines], dtype=np.int32)


def book_of(place: str) -> str:
    """The book of a place such as 1Sm3:4. Raises InvalidInputError for one that is in no group."""
    match = BOOK.match(place)
    if match is None or match[0] not in GROUP_OF:
        raise InvalidInputError(f"data verses: {place!r} is in no book that is known; they are {', '.join(GROUP_OF)}")
    return match[0]


class Reader(nn.Module):
    """Gated recurrent units that read a verse from both ends, a mean over its words, and a linear head.

    Input [B, 1, 1, words] of word numbers, output logits [B, num_classes]. Layer `words` gives the mean word vector
    [B, width] for feature losses; the head's input is [B, 2 units].
    """

    def __init__(self, vocabulary: int, width: int, units: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=NOTHING)
        self.words = nn.Identity()
        self.units = nn.GRU(width, units, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * units, classes)

    def forward(self, images: Tensor) -> Tensor:
        numbers = images.flatten(1).long()
        is_word = (numbers != NOTHING)[..., None]
        counts = is_word.sum(1).clamp_min(1)
        vectors = self.embedding(numbers)
        self.words((vectors * is_word).sum(1) / counts)  # for those who look at this layer
        read, _ = self.units(vectors)
        logits: Tensor = self.head((read * is_word).sum(1) / counts)
        return logits


def reader(num_classes: int, vocabulary: int = 4000, width: int = 64, units: int = 96) -> Reader:
    """The network, as `--student kdcache.pipelines.studies.verses:reader` names it."""
    return Reader(vocabulary, width, units, num_classes)
