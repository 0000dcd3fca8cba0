"""Texts through the stages: a token is a row, answered, stored, read and learned from as every other row."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError, MismatchError, ReplayError, TeacherSuspectError
from kdcache.pipelines.extract.dry_run import estimate
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.sharing.export import export_store
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.views.texts import Texts
from kdcache.whole_store.calibrate import fit_temperature
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.recode import recode_store
from kdcache.whole_store.recode_plan import Narrowing
from kdcache.whole_store.row_bytes import row_bytes
from kdcache.whole_store.stats import store_stats
from tests.kits.texts import (
    SEQUENCE,
    TEXT,
    VOCABULARY,
    Library,
    texts_of,
    trained_reader,
    write_tokenizer,
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def path(library: Library) -> str:
    """A store of the licence in top 6."""
    path = library.folder / "licence.kd"
    extract(library.asked(path))
    return str(path)


def answers_of(library: Library) -> np.ndarray:
    """The teacher's logits [N, C] in dataset order."""
    with torch.inference_mode():
        logits: Tensor = trained_reader(library.tokenizer)(torch.from_numpy(library.data.samples.tokens).long())
    return logits.flatten(0, 1).numpy()


def test_each_token_has_the_teachers_answer_for_the_next(library: Library, tmp_path: Path) -> None:
    extract(library.asked(tmp_path / "a.kd", encoding="full"))
    store, data = Store.open(tmp_path / "a.kd"), library.data
    assert store.identity.dataset.sequence == SEQUENCE
    assert (store.labels == data.labels[store.order]).all()
    expected = torch.from_numpy(answers_of(library)[store.order]).log_softmax(dim=1).numpy()
    soft, counted = store.read(0, range(store.rows)), store.labels >= 0
    assert np.abs(soft.log_probs(1.0) - expected)[counted].max() < 0.02
    rest = soft.log_probs(1.0)[~counted]
    assert np.ptp(rest) < 1e-6  # nothing was asked where no token follows
    assert len(rest) > 0


def test_top_k_holds_the_taken_token_and_the_tail(library: Library, path: str) -> None:
    store = Store.open(path)
    counted = np.flatnonzero(store.labels >= 0)
    soft, labels = store.read(0, counted), store.labels[counted]
    expected = torch.from_numpy(answers_of(library)[store.order[counted]]).log_softmax(dim=1).numpy()
    assert np.abs(soft.label_log_prob(1.0) - expected[np.arange(len(labels)), labels]).max() < 0.05
    top = np.sort(expected, axis=1)[:, -6:]
    assert np.abs(soft.tail_mass(1.0) - (1 - np.exp(top).sum(axis=1))).max() < 0.02


@pytest.mark.parametrize("as_object", [False, True])
def test_the_head_in_chunks_gives_the_same_store(
    library: Library, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_object: bool
) -> None:
    """And so does a teacher that answers an object, whichever way its logits are made."""
    monkeypatch.setattr("kdcache.networks.text_teacher.CHUNK_BYTES", 4 * VOCABULARY * 32)
    extract(library.asked(tmp_path / "a.kd", teacher_set={"as_object": as_object}))
    one, other = Store.open(path), Store.open(tmp_path / "a.kd")
    rows = range(one.rows)
    assert np.abs(one.read(0, rows).log_probs(1.0) - other.read(0, rows).log_probs(1.0)).max() < 0.07
    assert (one.load(0, rows).arrays["pixels"] == other.load(0, rows).arrays["pixels"]).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_bytes_hang_neither_on_workers_nor_on_the_batch(
    library: Library, path: str, tmp_path: Path, workers: int
) -> None:
    extract(library.asked(tmp_path / "a.kd", workers=workers, batch_size=64 * (1 + workers)))
    assert Store.open(tmp_path / "a.kd").content_id == Store.open(path).content_id


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"transform": "light"}, "--transform is for pictures"),
        ({"mix": "mixup"}, "--mix is for pictures"),
        ({"keep": ("head", "features")}, "--keep is for pictures"),
        ({"mean": (0.5,), "std": (0.5,)}, "--mean and --std is for pictures"),
        ({"on_bad_sample": "strike", "fill_view_cache": "x"}, "--on-bad-sample strike, --fill-view-cache are for pic"),
    ],
)
def test_settings_of_pictures_are_refused(library: Library, tmp_path: Path, changes: dict[str, Any], flag: str) -> None:
    with pytest.raises(InvalidInputError, match=flag):
        extract(library.asked(tmp_path / "a.kd", **changes))


def test_views_are_added_and_a_teacher_that_changed_is_found(library: Library, path: str, tmp_path: Path) -> None:
    store = Path(shutil.copytree(path, tmp_path / "a.kd"))
    assert extract(library.asked(store)).blocks_done_before > 0
    extract(library.asked(store, views="2"))
    assert Store.open(store).every_view == (0, 1)
    (tmp_path / "moody.py").write_text(
        "import os, torch\nfrom tests.kits.texts import reader as plain\n"
        "def reader():\n    network = plain()\n"
        "    network.head.register_forward_hook(lambda m, i, o: o * float(os.environ.get('MOOD', '1')))\n"
        "    return network\n"
    )
    asked = library.asked(tmp_path / "b.kd", teacher=f"{tmp_path}/moody.py:reader")
    extract(asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOOD", "1.7")
        with pytest.raises(TeacherSuspectError, match=r"from token \d+ of text \d+ \(LICENSE:\d+\) on\): the log-prob"):
            extract(library.asked(tmp_path / "b.kd", teacher=asked.teacher, views="2"))


def test_batches_hold_whole_texts_and_the_stores_rows(library: Library, path: str) -> None:
    store, data = Store.open(path), library.data
    loader = Loader(data, [store], batch_size=8, epochs=2)
    seen = []
    for batch in loader:
        positions = batch.positions.numpy()
        assert batch.images.shape == batch.y.shape == batch.positions.shape == (len(batch.y), SEQUENCE)
        rows = store.order[positions]
        assert (rows % SEQUENCE == np.arange(SEQUENCE)).all()
        tokens = data.samples.tokens[rows[:, 0] // SEQUENCE]
        assert (batch.images.numpy() == tokens).all()
        assert (batch.y.numpy() == data.labels[rows]).all()
        assert batch.mask is not None
        assert (batch.mask.numpy() == (batch.y.numpy() >= 0)).all()
        soft = store.read(0, positions.reshape(-1)).to()
        assert torch.equal(batch.teachers[0].logits, soft.logits.reshape(-1, SEQUENCE, 6))
        assert torch.equal(batch.teachers[0].tail, soft.tail.reshape(-1, SEQUENCE, soft.tail.shape[-1]))
        assert set(batch) == {"input_ids", "labels", "mask", "soft_labels"}
        seen.append(positions[:, 0] // SEQUENCE)
    assert sorted(np.concatenate(seen).tolist()) == list(range(len(data.ids)))
    small = Loader(data, [store], batch_size=8, epochs=1, positions=np.array([1, 4]))
    assert [batch.positions[:, 0].tolist() for batch in small] in (
        [[SEQUENCE, 4 * SEQUENCE]],
        [[4 * SEQUENCE, SEQUENCE]],
    )


def test_a_shifted_text_is_refused_at_the_first_batch(library: Library, path: str) -> None:
    data = library.data
    data.identity()  # as the store has it
    tokens = data.samples.tokens.copy()
    tokens[3] = np.roll(tokens[3], 1)
    shifted = replace(data, samples=Texts(tokens))
    object.__setattr__(shifted, "_identity", data.identity())
    with pytest.raises(ReplayError, match=r"another than .*licence\.kd was extracted from: its bytes have fingerprint"):
        list(Loader(shifted, [Store.open(path)], batch_size=8, epochs=1))


def test_what_is_not_the_stores_text_is_refused_before_the_first_step(
    library: Library, path: str, tmp_path: Path
) -> None:
    run = library.student(tmp_path / "run", store=(path,))
    other = write_tokenizer(tmp_path / "other.json", VOCABULARY + 8)
    (tmp_path / "LICENSE").write_text(TEXT.read_text()[7:])
    source = library.source["data_set"]
    cases = {
        r"dataset\.tokenizer": {"data_set": source | {"tokenizer": str(other)}},
        r"dataset\.sequence": {"data_set": source | {"sequence": 64}},
        r"dataset\.probes": {"data": f"text:{tmp_path / 'LICENSE'}"},
    }
    for field, changes in cases.items():
        with pytest.raises(MismatchError, match=field):
            train(run.model_copy(update=changes))
    assert not (tmp_path / "run").exists()


def test_a_student_learns_from_tokens(library: Library, path: str, tmp_path: Path) -> None:
    split = {"val_set": {"range": "0:40"}}
    summary = train(library.student(tmp_path / "run", store=(path,), **split))
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["perplexity"] == pytest.approx(np.exp(metrics[-1]["nll"]))
    assert metrics[-1]["perplexity"] < metrics[0]["perplexity"] < VOCABULARY
    data = texts_of(library.tokenizer, range="0:40")
    counted = data.labels[data.labels >= 0]
    assert data.vocabulary.token_bytes is not None
    bits = metrics[-1]["nll"] * len(counted) / np.log(2) / data.vocabulary.token_bytes[counted].sum()
    assert metrics[-1]["bits_a_byte"] == pytest.approx(bits)
    assert summary.validation["accuracy"] > 0
    plain = train(library.student(tmp_path / "plain", **split))
    assert plain.validation["perplexity"] < VOCABULARY


def test_parts_of_a_batch_are_weighed_by_the_tokens_that_count(library: Library, path: str, tmp_path: Path) -> None:
    changes = {
        "store": (path,),
        "epochs": 1,
        "optimizer": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "batch_size": 40,
    }
    losses = []
    for parts in (1, 7):
        train(library.student(tmp_path / f"run{parts}", accumulate=parts, **changes))
        losses.append(json.loads((tmp_path / f"run{parts}/metrics.jsonl").read_text())["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_text_store_is_measured_beside_a_student(library: Library, path: str, tmp_path: Path) -> None:
    summary = train(library.student(tmp_path / "run", store=(path,), val_store=(path,)))
    assert {"agreement", "kl_to_teacher", "perplexity"} <= set(summary.validation)


def test_the_whole_store_commands_work_as_on_pictures(library: Library, path: str, tmp_path: Path) -> None:
    store = Store.open(path)
    verdict = verify(VerifySettings.model_validate({
        "store": path, **library.source, "teacher": "tests.kits.texts:reader", "weights": library.weights,
        "rows": 100, "workers": 0,
    }))  # fmt: skip
    assert verdict.whole, verdict
    assert [check.name for check in verdict.checks][-4:] == ["contents", "pixels", "teacher weights", "teacher answers"]
    stats = store_stats(store)
    assert stats.rows == (store.labels >= 0).sum()  # nobody was asked about the others
    recode_store(path, str(tmp_path / "narrow.kd"), Narrowing(top_k=2))
    narrow = Store.open(tmp_path / "narrow.kd")
    assert narrow.identity.dataset == store.identity.dataset
    assert diff_stores(store, narrow).rows.agreement == 1.0
    assert fit_temperature(store).temperature > 0
    export_store(path, str(tmp_path / "zip.kd.zip"))
    assert Store.open(tmp_path / "zip.kd.zip").content_id == store.content_id
    train(library.student(tmp_path / "run", store=(str(tmp_path / "narrow.kd"),), epochs=1))


def test_a_dry_run_estimates_a_row(library: Library, path: str) -> None:
    found = estimate(library.asked(path + ".none"))
    assert found.bytes == pytest.approx(row_bytes(Store.open(path)) * len(library.data), rel=0.3)


def test_the_teacher_of_a_run_answers_texts(library: Library, path: str, tmp_path: Path) -> None:
    train(library.student(tmp_path / "run", epochs=1))
    extract(library.asked(tmp_path / "b.kd", teacher=f"run:{tmp_path / 'run'}", weights="", min_accuracy=0.0))
    assert Store.open(tmp_path / "b.kd").rows == Store.open(path).rows
