"""A real text (the project's licence), a tokenizer that is trained on it, and a small language model."""

import functools
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.training.run_folder import save_weights
from kdcache.views.data import Data
from kdcache.views.sources import open_data
from tests.kits.house import ROOT

TEXT = ROOT / "LICENSE"
VOCABULARY, SEQUENCE = 320, 32
END = "<|endoftext|>"


class Reader(nn.Module):
    """A language model on a recurrent layer: logits [B, S, C] of tokens [B, S], or an object with `.logits`."""

    def __init__(self, classes: int, width: int, *, as_object: bool = False) -> None:
        super().__init__()
        self.embedding, self.cell = nn.Embedding(classes, width), nn.GRU(width, width, batch_first=True)
        self.head, self.as_object = nn.Linear(width, classes), as_object

    def forward(self, tokens: Tensor) -> Any:
        logits = self.head(self.cell(self.embedding(tokens))[0])
        return Answer(logits) if self.as_object else logits


class Answer:
    """An output as transformers' are."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


def reader(num_classes: int = VOCABULARY, width: int = 24, as_object: bool = False) -> Reader:
    torch.manual_seed(0)
    return Reader(num_classes, width, as_object=as_object)


def write_tokenizer(path: Path, vocabulary: int = VOCABULARY) -> Path:
    """A byte-level BPE of the licence."""
    codes = tokenizers.Tokenizer(models.BPE())
    codes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    codes.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    codes.train([str(TEXT)], trainer)
    codes.save(str(path))
    return path


@functools.cache
def trained_reader(tokenizer: Path, steps: int = 120) -> Reader:
    """A reader that knows something of the licence."""
    data = texts_of(tokenizer)
    tokens, labels = torch.from_numpy(data.samples.tokens).long(), torch.from_numpy(data.labels).long()
    network = reader()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(network(tokens).flatten(0, 1), labels, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def texts_of(tokenizer: Path, **arguments: Any) -> Data:
    """The licence as texts."""
    return open_data(f"text:{TEXT}", {"tokenizer": str(tokenizer), "sequence": SEQUENCE, **arguments})


class Library:
    """Where the tokenizer and the teacher's weights lie, and the settings of stages on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = write_tokenizer(folder / "bpe.json")
        self.weights = str(folder / "reader.safetensors")
        save_weights(Path(self.weights), trained_reader(self.tokenizer))

    @property
    def data(self) -> Data:
        return texts_of(self.tokenizer)

    @property
    def source(self) -> dict[str, Any]:
        """The data set as settings name it."""
        return {"data": f"text:{TEXT}", "data_set": {"tokenizer": str(self.tokenizer), "sequence": SEQUENCE}}

    def asked(self, store: str | Path, **changes: Any) -> ExtractSettings:
        """Extract's settings: the whole licence, top 6; with changes."""
        teacher = {"teacher": "tests.kits.texts:reader", "weights": self.weights}
        settings = {"store": str(store), **teacher, **self.source, "top_k": 6, "workers": 0}
        return ExtractSettings.model_validate(settings | changes)

    def student(self, run: str | Path, **changes: Any) -> TrainSettings:
        """Train's settings: a narrower reader, two epochs; with changes."""
        student = {"student": "tests.kits.texts:reader", "student_set": {"width": 12}}
        rates = {"optimizer": "adamw", "lr": 0.01, "epochs": 2, "batch_size": 16, "workers": 0}
        return TrainSettings.model_validate({"run": str(run), **student, **self.source, **rates} | changes)
