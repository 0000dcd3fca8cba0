"""Rows of a language model over 128,000 words that no one has to download: answers with the statistics of a real text.

The text is the King James Bible (Debian's bible-kjv), in tokens of a byte-level BPE that is trained on it. A word's
frequency is that in the text, and beyond the words that the text has five times Zipf's law with the slope of ranks 100
and later. The BPE numbers its words about as frequent ones come first, and the words beyond follow by rank.

The teacher's logits of a row are (log frequency + 3 noise) / t: noise is normal, by word and row (windows of a bank of
2^22 numbers), t is log-normal by row about 0.8 with a deviation of 0.35: some rows are sure, some are not, and the best
20 words have 0.8 of the probability on average. The text's own next token then changes places with a word that is drawn
from these logits: so it is as likely as a calibrated teacher says.

Shape letters: Q texts, S tokens of each, R rows, C words.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.views.data import Data, text_data
from kdcache.views.sources import open_data
from kdcache.views.texts import DescribedTexts

Array = npt.NDArray[Any]

VOCABULARY = 16_384  # words of the BPE
COUNTED, FIRST_RANK = (
    5,
    100,
)  # times that a word must be there for its count to be taken; where the slope is fitted from
BANK, NOISE, SHARPNESS, SPREAD = 2**22, 3.0, 0.8, 0.35
VERSES = ("bible", "-f", "gen1:1-rev22:21")


def bible_text() -> str:
    """All verses, one a line, without their numbers."""
    if shutil.which(VERSES[0]) is None:
        raise SystemExit("there is no `bible`: apt install bible-kjv, whose text the rows have their statistics from")
    lines = subprocess.run(VERSES, capture_output=True, text=True, check=True).stdout.splitlines()
    return "\n".join(line.partition(" ")[2] for line in lines)


def text_in_tokens(text: str, folder: Path, sequence: int, vocabulary: int = VOCABULARY) -> Data:
    """The data set of a text by kdcache's source `text:`, in texts of `sequence` tokens of a BPE that it trains."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    (folder / "text.txt").write_text(text)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<end>"], initial_alphabet=letters, show_progress=False
    )
    tokenizer.train([str(folder / "text.txt")], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    arguments = {"tokenizer": str(folder / "tokenizer.json"), "sequence": sequence, "end": "<end>"}
    return open_data(f"text:{folder / 'text.txt'}", arguments)


def first_texts(data: Data, count: int, names: Array | None = None) -> Data:
    """The first texts of a data set; `names` [C] are other ids of its words."""
    sequence, tokens = data.sequence, np.asarray(data.samples.tokens[:count])  # type: ignore[attr-defined]
    labels = data.labels.reshape(-1, sequence)[:count]
    if names is not None:
        tokens, labels = names[tokens], np.where(labels < 0, -1, names[labels])
    ids = list(data.ids[:count])
    return text_data(DescribedTexts(tokens.astype(np.int32), labels.astype(np.int32), ids, data.name))


def frequencies(data: Data, classes: int) -> Array:
    """[C] f64 by id, of a sum of 1: counted where a word is there often enough, Zipf's law beyond."""
    counts = np.bincount(np.asarray(data.samples.tokens).reshape(-1), minlength=classes)  # type: ignore[attr-defined]
    by_rank = np.argsort(-counts, kind="stable")
    ranked = counts[by_rank].astype(np.float64)
    known = int((ranked >= COUNTED).sum())
    ranks = np.arange(1.0, classes + 1)
    fitted = slice(min(FIRST_RANK, known // 2), known)
    slope = np.polyfit(np.log(ranks[fitted]), np.log(ranked[fitted]), 1)[0]
    ranked[known:] = ranked[known - 1] * (ranks[known:] / ranks[known - 1]) ** slope
    shares = np.empty(classes)
    shares[by_rank] = ranked / ranked.sum()
    return shares


@dataclass(frozen=True)
class MadeTeacher:
    """The teacher of the model above: `log_frequency` [C] and `bank` [BANK], f32."""

    log_frequency: Tensor
    bank: Tensor

    @classmethod
    def of(cls, shares: Array) -> "MadeTeacher":
        bank = torch.randn(max(BANK, 4 * len(shares)), generator=torch.Generator().manual_seed(0))
        return cls(torch.from_numpy(np.log(shares)).float(), bank)

    def logits(self, labels_R: Array, seed: int) -> Tensor:
        """[R, C] f32 answers to rows whose next tokens are known, -1 for none; the seed is the rows' own."""
        rng, classes = np.random.RandomState(seed), len(self.log_frequency)
        starts = rng.randint(0, len(self.bank) - classes, len(labels_R)).tolist()
        sharpness = np.exp(rng.normal(np.log(SHARPNESS), SPREAD, len(labels_R))).tolist()
        uniforms = torch.from_numpy(rng.random_sample((len(labels_R), 1))).float()
        logits = torch.empty(len(labels_R), classes)
        for row, start, t in zip(logits, starts, sharpness, strict=True):
            torch.add(self.log_frequency, self.bank[start : start + classes], alpha=NOISE, out=row).mul_(1.0 / t)
        sums = torch.softmax(logits, dim=-1).cumsum_(dim=-1)
        drawn = torch.searchsorted(sums, uniforms * sums[:, -1:]).clamp_max_(classes - 1)
        rows = torch.from_numpy(np.flatnonzero(labels_R >= 0))
        label, other = torch.from_numpy(labels_R).long()[rows], drawn[rows, 0]
        logits[rows, label], logits[rows, other] = logits[rows, other], logits[rows, label]
        return logits
