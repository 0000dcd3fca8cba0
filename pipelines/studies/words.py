"""Words of a text as tokens: the King James Bible as Debian prints it, or a file of one's own."""

import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdcache.errors import InvalidInputError

VERSES = ("bible", "-f", "gen1:1-rev22:21")  # each on a line, after its place
SOURCES = "kdcache"  # names the studies' own files: a text that is wherever kdcache is
WORD = re.compile(r"[a-z]+|[.,;:?!]")
EVERY = 20  # one text of so many is for tests
SPLITS = ("train", "test")

Ids = npt.NDArray[np.int32]


class Words:
    """Texts [Q, S] i32 of a split: the C - 1 commonest words and marks are 0 to C - 2, all others C - 1. Every
    twentieth text is for tests; a text's last token has no label, so that no split sees a token of the other."""

    def __init__(self, split: str, text: str, vocabulary: int, sequence: int) -> None:
        if split not in SPLITS:
            raise InvalidInputError(f"data words: split is {split!r}; choose {' or '.join(SPLITS)}")
        ids = word_ids(text, vocabulary)
        count = len(ids) // sequence
        if count < EVERY:
            raise InvalidInputError(
                f"data words: {text or 'the Bible'} has {len(ids):,} words, and {EVERY} texts of {sequence} are the "
                "least; give a longer text"
            )
        numbers = np.arange(count)
        chosen = numbers[(numbers % EVERY == EVERY - 1) == (split == "test")]
        self.tokens = ids[: count * sequence].reshape(count, sequence)[chosen]
        self.ids = [str(number * sequence) for number in chosen.tolist()]
        self.vocabulary = vocabulary


def words(split: str = "train", text: str = "", vocabulary: int = 1024, sequence: int = 32) -> Words:
    """The data set, as `--data kdcache.pipelines.studies.words:words` names it; `text`: a file, or empty for the
    Bible."""
    return Words(split, text, vocabulary, sequence)


@lru_cache(maxsize=2)  # both splits are parts of one text
def word_ids(text: str, vocabulary: int) -> Ids:
    """The ids of all words and marks of a text, small letters alone."""
    every = WORD.findall(_read(text).lower())
    known = known_words(every, vocabulary - 1)
    return np.array([known.get(word, vocabulary - 1) for word in every], dtype=np.int32)


def known_words(words: Sequence[str], count: int) -> dict[str, int]:
    """The numbers, from 0, of the `count` commonest words, the commonest first."""
    return {word: number for number, (word, _) in enumerate(Counter(words).most_common(count))}


def _read(text: str) -> str:
    """A text by its file, or one of those that are known. Raises InvalidInputError where it is not here."""
    if text == SOURCES:
        paths = sorted(Path(__file__).parent.glob("*.py"))
        return "\n".join(path.read_text("utf-8") for path in paths)
    if text:
        try:
            return Path(text).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"data words: {text} cannot be read as UTF-8 ({error}); name a text") from error
    verses = bible_lines("words", "; or name a text of your own by --data-set text=FILE")
    return "\n".join(verse.partition(" ")[2] for verse in verses)


def bible_lines(data: str, advice: str = "") -> list[str]:
    """The Bible's verses, each after its place, such as `Ge1:1 In the beginning`. Raises InvalidInputError, which names
    the data set and ends in advice, where the program that prints them is not here."""
    try:
        return subprocess.run(VERSES, capture_output=True, check=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        raise InvalidInputError(
            f"data {data}: the program bible is not here; on Debian: apt install bible-kjv{advice}"
        ) from error
