"""Language models of transformers: they teach, learn, and are saved and loaded with their tied weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from kdcache.networks.build import build_network
from kdcache.networks.weights import load_weights, weights_digest
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.store.store import Store
from tests.kits.texts import SEQUENCE, VOCABULARY, Library

CAUSAL = {"task": "causal-lm"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def folder(library: Library) -> Path:
    """A folder of an untrained GPT-2, whose head is tied to its embedding."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=SEQUENCE, n_embd=32, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(library.folder / "gpt2")
    return library.folder / "gpt2"


def test_a_folder_teaches_tokens(library: Library, folder: Path, tmp_path: Path) -> None:
    teacher = {"teacher": f"transformers:{folder}", "teacher_set": CAUSAL, "weights": ""}
    summary = extract(library.asked(tmp_path / "a.kd", **teacher, encoding="full", min_accuracy=0.0))
    assert not any("does more after its last linear layer" in note for note in summary.notes)
    store, network = Store.open(tmp_path / "a.kd"), GPT2LMHeadModel.from_pretrained(folder).eval()
    assert (store.identity.teacher.name, store.identity.teacher.arguments) == ("transformers:GPT2LMHeadModel", {})
    with torch.inference_mode():
        logits = network(torch.from_numpy(library.data.samples.tokens).long()).logits.flatten(0, 1)
    counted = np.flatnonzero(store.labels >= 0)
    expected = logits[torch.from_numpy(store.order[counted])].log_softmax(dim=1).numpy()
    assert np.abs(store.read(0, counted).log_probs(1.0) - expected).max() < 0.02
    settings = {"store": str(tmp_path / "a.kd"), **library.source, **teacher, "rows": 64, "workers": 0}
    assert verify(VerifySettings.model_validate(settings)).whole


def test_a_student_of_a_folder_learns_and_teaches_in_turn(library: Library, folder: Path, tmp_path: Path) -> None:
    extract(library.asked(tmp_path / "a.kd"))
    student = {"student": f"transformers:{folder}", "student_set": CAUSAL | {"pretrained": False}}
    changes = {"store": (str(tmp_path / "a.kd"),), "val_set": {"range": "0:40"}, "epochs": 3, "lr": 3e-3}
    summary = train(library.student(tmp_path / "run", **student, **changes))
    assert summary.validation["perplexity"] < 0.7 * VOCABULARY
    networks = [build_network(student["student"], student["student_set"], VOCABULARY, "student") for _ in range(2)]  # type: ignore[arg-type]
    for network in networks:
        load_weights(network, summary.weights, "student")
        assert network.lm_head.weight is network.transformer.wte.weight
    assert weights_digest(networks[0]) == weights_digest(networks[1])
    extract(library.asked(tmp_path / "b.kd", teacher=f"run:{tmp_path / 'run'}", weights="", min_accuracy=0.0))
    assert Store.open(tmp_path / "b.kd").identity.teacher.weights == weights_digest(networks[0])
