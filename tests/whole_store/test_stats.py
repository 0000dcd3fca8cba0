"""stats: every figure against dense logits, added up over blocks; what is missing, mixed or unlabelled is said.

Shape letters: V views, N positions, C classes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import log_softmax

from kdcache.base.arrays import values_digest
from kdcache.errors import DamagedError, MissingBlockError
from kdcache.store.store import Store
from kdcache.whole_store.calibrate import fit_temperature
from kdcache.whole_store.stats import StoreStats, store_stats
from kdcache.whole_store.tally import Range
from tests.cli.test_cli import Capture, answer, kdcache, refusal
from tests.kits.stores import Case, create_store, make_case, real_case, write_store, write_views

Array = npt.NDArray[Any]
ROWS = 300


def agreeing(case: Case) -> Case:
    """Views that mostly agree: one set of logits, with noise."""
    noise = np.random.RandomState(6).normal(0, 0.5, case.logits.shape)
    logits = (case.logits[:1] + noise).astype(np.float32)
    return Case(case.identity, case.order, case.labels, logits)


def right(case: Case) -> Case:
    """Hard labels that are the top class for every third position."""
    labels = case.labels.copy()
    labels[::3] = case.logits[0].argmax(axis=-1)[::3]
    by_index = np.empty_like(labels)
    by_index[case.order] = labels
    dataset = case.identity.dataset.model_copy(update={"labels": values_digest(by_index.astype("i4"))})
    return Case(case.identity.model_copy(update={"dataset": dataset}), case.order, labels, case.logits)


def percentile_of(values: Array, share: int, top: float, found: float) -> bool:
    """Within a bin of a thousandth of the range."""
    near = np.percentile(values, share, method="inverted_cdf"), np.percentile(values, share, method="higher")
    return bool(near[0] - 1.01 * top / 1000 <= found <= near[1] + 1.01 * top / 1000)


@pytest.mark.parametrize("k", [5, None], ids=["top 5", "full"])
def test_figures_are_those_of_dense_logits(tmp_path: Path, k: int | None) -> None:
    case = right(agreeing(make_case(ROWS, k=k, quantisation="high" if k else "default", views=3)))
    store = write_store(tmp_path / "a.kd", case)
    found = store_stats(store)
    log_p = log_softmax(case.logits.astype("f8"), axis=-1)
    top, entropy, confidence = log_p.argmax(-1), -(np.exp(log_p) * log_p).sum(-1), np.exp(log_p.max(-1))
    labelled, near = case.labels >= 0, 0.02 if k else 1e-3  # the tail's part of an entropy is estimated
    assert (found.rows, found.blocks, found.missing, found.clamped) == (3 * ROWS, 5, 0, 0)
    assert found.unlabelled == pytest.approx(1 - labelled.mean())
    assert found.accuracy == pytest.approx((top == case.labels)[:, labelled].mean())
    wanted = -np.take_along_axis(log_p, np.maximum(case.labels, 0)[None, :, None], axis=-1)[:, labelled].mean()
    assert found.nll == pytest.approx(wanted, abs=0.01)
    assert found.confidence.mean == pytest.approx(confidence.mean(), abs=2e-3)
    assert found.entropy.mean == pytest.approx(entropy.mean(), abs=near)
    for share, name in ((5, "p5"), (25, "p25"), (50, "median"), (75, "p75"), (95, "p95")):
        assert percentile_of(confidence, share, 4.0, getattr(found.confidence, name))
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    assert found.agreement == pytest.approx(np.mean([(top[a] == top[b]).mean() for a, b in pairs]))
    assert found.unanimous == pytest.approx((top == top[0]).all(axis=0).mean())
    np.testing.assert_array_equal(found.top_by_class, np.bincount(top.ravel(), minlength=30))
    np.testing.assert_array_equal(found.labels_by_class, np.bincount(case.labels[labelled], minlength=30))
    shares = np.bincount(top.ravel(), minlength=30) / top.size
    assert found.classes_in_use == pytest.approx(np.exp(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()))
    for view, own in enumerate(found.views):
        assert own.accuracy == pytest.approx((top[view] == case.labels)[labelled].mean())
        others = [(top[view] == top[other]).mean() for other in range(3) if other != view]
        assert own.agreement == pytest.approx(np.mean(others))
        assert own.entropy == pytest.approx(entropy[view].mean(), abs=near)
    _require_kept(found, case, k)


def _require_kept(found: StoreStats, case: Case, k: int | None) -> None:
    if k is None:
        assert (found.kept, found.kept_histograms) == (None, ())
        return
    assert found.kept is not None
    for temperature, spread, histogram in zip((1.0, 2.0, 4.0), found.kept, found.kept_histograms, strict=True):
        p = np.exp(log_softmax(case.logits.astype("f8") / temperature, axis=-1))
        kept = np.sort(p, axis=-1)[..., -k:].sum(-1)
        assert spread.mean == pytest.approx(kept.mean(), abs=2e-3)
        assert (spread.min, spread.max) == pytest.approx((kept.min(), kept.max()), abs=8e-3)
        assert percentile_of(kept, 50, 5.0, spread.median)
        assert sum(histogram) == found.rows


def test_calibration_is_that_of_calibrate(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", right(make_case(ROWS, views=1)))
    found, known = store_stats(store), fit_temperature(store)
    assert (found.ece, found.nll, found.accuracy) == pytest.approx((known.ece_before, known.nll_before, known.accuracy))
    assert [each.rows for each in found.reliability] == [each.rows for each in known.bins_before]
    assert (found.agreement, found.unanimous, found.views[0].agreement) == (None, None, None)


def test_bytes_are_those_on_disk(tmp_path: Path) -> None:
    found = store_stats(write_store(tmp_path / "a.kd", make_case(ROWS, features=4)))
    segment = tmp_path / "a.kd/views-00000-00002"
    for each in found.arrays:
        on_disk = (
            segment / each.name / "c"
            if each.name != "commits"
            else segment.parent / "kdcache" / segment.name / "commits"
        )
        assert each.bytes == sum(path.stat().st_size for path in on_disk.rglob("*") if path.is_file()), each.name
    assert {"features", "canary", "commits"} <= {each.name for each in found.arrays}
    assert found.bytes_a_row == pytest.approx(sum(each.bytes for each in found.arrays) / found.rows)


def test_two_labels_a_row_are_right_where_one_is(tmp_path: Path) -> None:
    case = right(make_case(ROWS, mix="mixup", masked=(2,)))
    store = write_store(tmp_path / "a.kd", case)
    found = store_stats(store)
    both = np.stack([store.hard_labels(view, np.arange(ROWS)) for view in (0, 1)])
    logits = case.logits.copy()
    logits[..., 2] = -np.inf
    known = (both >= 0) & (both != 2)
    hit = ((both == logits.argmax(-1)[..., None]) & known).any(-1)
    assert found.accuracy == pytest.approx(hit.sum() / known.any(-1).sum())
    assert found.unlabelled == pytest.approx(1 - known.any(-1).mean())
    assert (found.ece, found.nll, found.reliability) == (None, None, ())


def test_full_with_a_masked_class(tmp_path: Path) -> None:
    case = make_case(ROWS, k=None, masked=(2,))
    found = store_stats(write_store(tmp_path / "a.kd", case))
    logits = np.delete(case.logits.astype("f8"), 2, axis=-1)
    log_p = log_softmax(logits, axis=-1)
    assert found.entropy.mean == pytest.approx(-(np.exp(log_p) * log_p).sum(-1).mean(), abs=1e-3)
    assert found.top_by_class[2] == 0
    assert found.unlabelled == pytest.approx(1 - ((case.labels >= 0) & (case.labels != 2)).mean())


def test_entropy_of_real_rows_is_estimated_well(tmp_path: Path, real_logits: Array) -> None:
    """An ImageNet teacher: as measured in `tail.tail_mean`."""
    log_p = log_softmax(real_logits.astype("f8"), axis=-1)
    exact = -(np.exp(log_p) * log_p).sum(-1)
    for k, mean in ((10, 0.03), (50, 0.015)):
        found = store_stats(write_store(tmp_path / f"{k}.kd", real_case(real_logits, k)))
        assert abs(found.entropy.mean - exact.mean()) < mean


def test_what_is_committed_counts_and_what_is_missing_is_said(tmp_path: Path) -> None:
    case = make_case(ROWS, views=3)
    store = create_store(tmp_path / "a.kd", case)
    with pytest.raises(MissingBlockError, match="no committed block"):
        store_stats(store)
    write_views(store, 0, case.logits[:2], blocks=(0, 3))
    write_views(store, 2, case.logits[2:], blocks=(4,))
    found = store_stats(Store.open(tmp_path / "a.kd"))
    assert (found.rows, found.blocks, found.missing, found.content_id) == (2 * 128 + 44, 10, 7, None)
    assert [(each.view, each.rows) for each in found.views] == [(0, 128), (1, 128), (2, 44)]
    top = case.logits.argmax(-1)
    rows = np.r_[0:64, 192:256]
    assert found.agreement == pytest.approx((top[0] == top[1])[rows].mean())
    assert found.views[2].agreement is None


def test_a_damaged_file_ends_it(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", make_case(ROWS))
    path = tmp_path / "a.kd" / store.segments[0].layout.arrays["tail"].key(2)
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"tail/c/0/0/2 has sha256"):
        store_stats(store)


def test_a_range_is_its_values() -> None:
    values = np.random.RandomState(2).beta(2, 5, 5000) * 3
    parts = []
    for part in np.split(values, 10):
        parts.append(Range(3.0))
        parts[-1].add(part)
    for part in parts[1:]:
        parts[0].join(part)
    found = parts[0].percentiles()
    assert found.mean == pytest.approx(values.mean())
    assert (found.min, found.max) == (values.min(), values.max())
    assert [found.p5, found.median, found.p95] == pytest.approx(np.percentile(values, [5, 50, 95]), abs=0.004)
    single = Range(1.0)
    single.add(np.ones(1))
    assert set(single.percentiles().model_dump().values()) == {1.0}


def test_the_command_line(tmp_path: Path, capsys: Capture) -> None:
    write_store(tmp_path / "a.kd", right(make_case(ROWS)))
    assert kdcache("stats", tmp_path / "a.kd", "--plot", tmp_path / "p.png") == 0
    shown, _ = capsys.readouterr()
    for said in ("kept mass, T = 2", "classes in use", "by view", "agreement of views"):
        assert said in shown
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    record = answer(capsys, "stats", tmp_path / "a.kd")
    assert record == json.loads(store_stats(Store.open(tmp_path / "a.kd")).model_dump_json())
    assert "--engine dask" in refusal(capsys, "stats", tmp_path / "a.kd", "--dask-workers", "2")
    assert "ends in '.bmp'" in refusal(capsys, "stats", tmp_path / "a.kd", "--plot", tmp_path / "p.bmp")
