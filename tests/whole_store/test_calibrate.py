"""calibration: T* against an independent fit, ECE against torchmetrics, what is refused, and the command line.

Shape letters: N positions, C classes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from kdcache.errors import InvalidInputError, MissingBlockError
from kdcache.labels.full import FullEncoding
from kdcache.labels.topk import TopKEncoding
from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from kdcache.whole_store.calibrate import SEARCHES, fit_temperature
from tests.cli.test_cli import Capture, answer, kdcache, refusal
from tests.kits import stages
from tests.kits.stages import Stage
from tests.kits.stores import Case, create_store, make_case, make_identity, write_store, write_views

stage = stages.stage

Array = npt.NDArray[Any]
COPIES = 10  # labels drawn for each real photograph


def labelled_case(logits_NC: Array, labels_N: Array, *, k: int | None = None, masked: tuple[int, ...] = ()) -> Case:
    """One view of given logits and hard labels, positions shuffled."""
    rows, classes = logits_NC.shape
    order = np.random.RandomState(5).permutation(rows)
    encoding = FullEncoding() if k is None else TopKEncoding(k=k)
    identity = make_identity(order, labels_N, classes=classes, encoding=encoding, masked=masked)
    return Case(identity, order, labels_N[order], logits_NC[order][None].astype(np.float32))


def drawn_labels(logits_NC: Array, temperature: float, seed: int) -> Array:
    """[N] one label a row from softmax(logits / T)."""
    shares_NC = softmax(logits_NC.astype(np.float64) / temperature, axis=1).cumsum(axis=1)
    return (np.random.RandomState(seed).random_sample((len(logits_NC), 1)) > shares_NC[:, :-1]).sum(axis=1)


def nll(logits_NC: Array, labels_N: Array, temperature: float) -> float:
    """Mean of -log softmax(logits / T) at the labels, dense and in f64."""
    log_probs = log_softmax(logits_NC.astype(np.float64) / temperature, axis=1)
    return float(-log_probs[np.arange(len(labels_N)), labels_N].mean())


def fitted(logits_NC: Array, labels_N: Array, low: float = 0.05) -> float:
    """T of the least NLL by scipy, over log T."""
    found = minimize_scalar(
        lambda x: nll(logits_NC, labels_N, np.exp(x)), bounds=np.log([low, 100.0]), options={"xatol": 1e-7}
    )
    return float(np.exp(found.x))


def known(store: Store) -> tuple[Array, Array]:
    """What a full store of one view holds: logits [N, C] in f64, hard labels [N]."""
    return store.read(0, np.arange(store.rows)).logits.astype(np.float64), store.labels


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_the_temperature_of_the_labels_is_recovered(real_logits: Array, tmp_path: Path, truth: float) -> None:
    logits = np.repeat(real_logits, COPIES, axis=0)
    labels = drawn_labels(logits, truth, seed=1)
    store = write_store(tmp_path / "held-out.kd", labelled_case(logits, labels))
    found = fit_temperature(store)
    assert not found.at_bound
    assert found.temperature == pytest.approx(fitted(*known(store)), rel=1e-4)
    assert found.temperature == pytest.approx(fitted(logits, labels), rel=1e-3)  # the store's logits are f16
    shares = softmax(logits.astype(np.float64) / truth, axis=1)
    variance = (shares * logits**2).sum(axis=1) - (shares * logits).sum(axis=1) ** 2
    deviation = 1 / np.sqrt(variance.sum())  # of b = 1 / T, from the Fisher information
    assert abs(1 / found.temperature - 1 / truth) < 4 * deviation
    assert deviation * truth < 0.03
    assert found.nll_before == pytest.approx(nll(*known(store), 1.0), rel=1e-12)
    assert found.nll_after == pytest.approx(nll(*known(store), found.temperature), rel=1e-12)


@pytest.mark.parametrize("k", [5, 20])
def test_a_top_k_store_finds_the_temperature_of_all_logits(real_logits: Array, tmp_path: Path, k: int) -> None:
    """The sketch between its nodes and the quantised gaps cost less than the sampling error, which is over 1 %."""
    logits = np.repeat(real_logits, COPIES, axis=0)
    for truth in (1.5, 3.0):
        labels = drawn_labels(logits, truth, seed=2)
        found = fit_temperature(write_store(tmp_path / f"{truth}.kd", labelled_case(logits, labels, k=k)))
        assert found.temperature == pytest.approx(fitted(logits, labels), rel=0.01)
        assert found.nll_after == pytest.approx(nll(logits, labels, fitted(logits, labels)), abs=0.003)
        assert not found.at_bound


def test_a_top_k_store_ends_at_1_and_says_so(real_logits: Array, tmp_path: Path) -> None:
    logits = np.repeat(real_logits, COPIES, axis=0)
    labels = drawn_labels(logits, 0.5, seed=3)
    found = fit_temperature(write_store(tmp_path / "sharp.kd", labelled_case(logits, labels, k=10)))
    assert (found.temperature, found.at_bound) == (1.0, True)
    assert "--encoding full" in found.note
    assert found.nll_before == found.nll_after
    assert found.curve[0][0] == 1.0


def test_full_stores_have_bounds_too(tmp_path: Path) -> None:
    logits = np.random.RandomState(0).normal(0, 3, (300, 10)).astype(np.float32)
    never_wrong = fit_temperature(write_store(tmp_path / "right.kd", labelled_case(logits, logits.argmax(axis=1))))
    assert (never_wrong.temperature, never_wrong.at_bound, never_wrong.accuracy) == (0.05, True, 1.0)
    assert "hardly errs" in never_wrong.note
    always = fit_temperature(write_store(tmp_path / "wrong.kd", labelled_case(logits, logits.argmin(axis=1))))
    assert (always.temperature, always.at_bound, always.accuracy) == (100.0, True, 0.0)
    assert "class order" in always.note


@pytest.mark.parametrize("spread", [1.0, 12.0], ids=["spread", "saturated"])
@pytest.mark.parametrize("k", [None, 4])
def test_ece_and_accuracy_are_those_of_torchmetrics(tmp_path: Path, k: int | None, spread: float) -> None:
    logits = np.random.RandomState(1).normal(0, spread, (900, 12)).astype(np.float32)
    labels = drawn_labels(logits, 3.0, seed=4)
    labels[::7] = -1
    store = write_store(tmp_path / "a.kd", labelled_case(logits, labels, k=k))
    found = fit_temperature(store)
    kept = store.labels >= 0
    for temperature, ece in ((1.0, found.ece_before), (found.temperature, found.ece_after)):
        soft = store.read(0, np.flatnonzero(kept))
        dense = torch.from_numpy(soft.dense(temperature).astype(np.float64))
        if k is not None:  # where a gap of under 1/32 nat is stored as none, the order of the classes still tells
            dense[np.arange(len(dense)), soft.classes[:, 0]] += 1e-12
        target = torch.from_numpy(store.labels[kept])
        expected = MulticlassCalibrationError(12, n_bins=15, norm="l1")(dense, target)
        assert ece == pytest.approx(float(expected), abs=2e-6)
        assert found.accuracy == pytest.approx(float(MulticlassAccuracy(12, average="micro")(dense, target)), abs=1e-6)
    if k is None:
        assert (spread > 5) == (found.bins_before[-1].low == 1.0)  # probabilities that round to 1 in f32
    for bins, ece in ((found.bins_before, found.ece_before), (found.bins_after, found.ece_after)):
        assert sum(each.rows for each in bins) == found.rows
        gaps = sum(each.rows * abs(each.accuracy - each.confidence) for each in bins)
        assert gaps / found.rows == pytest.approx(ece)


def test_rows_without_a_usable_label_are_left_out(tmp_path: Path) -> None:
    logits = np.random.RandomState(2).normal(0, 3, (400, 8)).astype(np.float32)
    labels = drawn_labels(logits, 2.0, seed=5)
    unknown = labels.copy()
    unknown[::5] = -1
    for k in (None, 3):
        store = write_store(tmp_path / f"{k}.kd", labelled_case(logits, unknown, k=k, masked=(6,)))
        found = fit_temperature(store)
        kept = (unknown >= 0) & (unknown != 6)
        assert (found.rows, found.rows_without_label) == (kept.sum(), 400 - kept.sum())
        visible = np.delete(logits, 6, axis=1)[kept]
        shifted = np.where(unknown > 6, unknown - 1, unknown)[kept]
        assert found.temperature == pytest.approx(fitted(visible, shifted), rel=2e-3 if k is None else 0.05)


def test_the_view_is_chosen_and_progress_ends(tmp_path: Path) -> None:
    store = write_store(tmp_path / "two.kd", make_case(rows=150, k=None, views=2))
    seen: list[tuple[int, int]] = []
    second = fit_temperature(store, 1, progress=lambda what, done, total: seen.append((done, total)))
    first = fit_temperature(store)
    assert (first.view, second.view) == (0, 1)
    assert first.nll_before != second.nll_before
    assert second.content_id == store.content_id
    assert seen[-1] == ((SEARCHES + 1) * 150,) * 2
    assert seen == sorted(seen)


def test_pieces_do_not_change_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write_store(tmp_path / "a.kd", make_case(rows=500, k=None))
    whole = fit_temperature(store)
    monkeypatch.setattr("kdcache.whole_store.calibrate.PIECE", 30 * 17)
    cut = fit_temperature(store)
    assert cut.temperature == whole.temperature
    assert cut.nll_after == pytest.approx(whole.nll_after, rel=1e-12)
    assert [each.rows for each in cut.bins_before] == [each.rows for each in whole.bins_before]


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_views_are_refused(tmp_path: Path, mix: str) -> None:
    store = write_store(tmp_path / "mixed.kd", make_case(mix=mix))
    with pytest.raises(InvalidInputError, match=f"mixed by {mix}.*unmixed store of held-out rows"):
        fit_temperature(store)


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    logits = np.zeros((70, 4), dtype=np.float32)
    unlabelled = write_store(tmp_path / "none.kd", labelled_case(logits, np.full(70, -1)))
    with pytest.raises(InvalidInputError, match="no row with a hard label"):
        fit_temperature(unlabelled)
    with pytest.raises(InvalidInputError, match="has no view 3; it has views-00000-00001"):
        fit_temperature(unlabelled, 3)
    case = make_case(rows=200)
    with pytest.raises(InvalidInputError, match="has no views yet; run kdcache extract"):
        fit_temperature(create_store(tmp_path / "empty.kd", case))
    partial = create_store(tmp_path / "partial.kd", case)
    write_views(partial, 0, case.logits, blocks=[0, 2])
    with pytest.raises(MissingBlockError, match="block 1"):
        fit_temperature(partial)


@pytest.fixture(scope="module")
def held_out(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher's word on digits that it was not trained on, all logits."""
    path = tmp_path_factory.mktemp("held-out") / "test.kd"
    changes = {"transform": "none", "transform_set": {}, "views": "1", "top_k": 10}
    extract(stage.asked(path, data_set={"split": "test"}, **changes))
    return path


def test_digits_are_calibrated_from_the_command_line(held_out: Path, tmp_path: Path, capsys: Capture) -> None:
    found = answer(capsys, "calibrate", held_out, "--plot", tmp_path / "digits.png")
    store = Store.open(held_out)
    assert found["content_id"] == store.content_id
    assert found["temperature"] == pytest.approx(fitted(*known(store)), rel=1e-4)
    assert found["nll_after"] < found["nll_before"]
    assert found["rows"] == store.rows
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")
    assert min(loss for _, loss in found["curve"]) == pytest.approx(found["nll_after"], rel=1e-12)
    assert kdcache("calibrate", held_out) == 0
    out, err = capsys.readouterr()
    assert out.startswith("calibrated\n")
    assert f"temperature : {found['temperature']:.4g}" in out
    assert "curve" not in out
    assert "error" not in err


def test_a_top_k_store_at_its_bound_advises_people(tmp_path: Path, capsys: Capture) -> None:
    logits = np.random.RandomState(3).normal(0, 3, (200, 10))
    write_store(tmp_path / "never-wrong.kd", labelled_case(logits, logits.argmax(axis=1), k=3))
    assert kdcache("calibrate", tmp_path / "never-wrong.kd") == 0
    out = capsys.readouterr().out
    assert ", the end of the range" in out
    assert "a top-k store's tail sketch ends: extract these rows with --encoding full" in out


def test_a_picture_that_cannot_be_drawn_is_refused_first(held_out: Path, tmp_path: Path, capsys: Capture) -> None:
    assert "it can be .png, .pdf, .svg" in refusal(capsys, "calibrate", held_out, "--plot", tmp_path / "a.txt")
    assert "there is no folder" in refusal(capsys, "calibrate", held_out, "--plot", tmp_path / "nowhere/a.png")
    assert list(tmp_path.iterdir()) == []
    assert json.loads(json.dumps(answer(capsys, "calibrate", held_out)))["at_bound"] is False
