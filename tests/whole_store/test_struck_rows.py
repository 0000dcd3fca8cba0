"""Struck rows, and stores of sequences, under every command that walks a whole store."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from kdcache.errors import MissingBlockError
from kdcache.pipelines.verify.stage import _committed_positions
from kdcache.sharing.cards import readme
from kdcache.sharing.export import export_store
from kdcache.sharing.merge import merge_stores
from kdcache.sharing.push_pull import pull
from kdcache.store import segment_layout
from kdcache.store.inspection import describe_rows, describe_store
from kdcache.store.store import Store
from kdcache.whole_store.calibrate import fit_temperature
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.row_bytes import row_bytes
from kdcache.whole_store.stats import store_stats
from kdcache.whole_store.verify import inspect_files
from tests.kits.recode import recoded
from tests.kits.stores import Case, create_store, make_case, write_store, write_views

ROWS, STRUCK = 200, (3, 70, 90, 199)


def answered(store: Store, view: int) -> np.ndarray:
    return np.setdiff1d(np.arange(ROWS), store.struck(view))


@pytest.mark.parametrize("k", [5, None])
def test_stats_are_those_of_the_other_rows(tmp_path: Path, k: int | None) -> None:
    case = make_case(ROWS, k=k, views=3, struck=STRUCK)
    store = write_store(tmp_path / "a.kd", case)
    stats, rows = store_stats(store), answered(store, 0)
    assert (stats.rows, stats.struck, [view.rows for view in stats.views]) == (3 * 196, 12, [196] * 3)
    tops = case.logits[:, rows].argmax(axis=2)
    assert stats.top_by_class == tuple(np.bincount(tops.ravel(), minlength=30).tolist())
    labels = case.labels[rows]
    assert stats.unlabelled == (labels < 0).mean()
    assert stats.accuracy == (tops == labels)[:, labels >= 0].mean()
    pairs = [(tops[a] == tops[b]).mean() for a in range(3) for b in range(3) if a != b]
    assert stats.agreement == pytest.approx(np.mean(pairs))
    assert stats.unanimous == (tops == tops[0]).all(axis=0).mean()
    if k is None:
        log_p = log_softmax(case.logits[:, rows].astype("f8"), axis=2)
        assert stats.entropy.mean == pytest.approx(-(np.exp(log_p) * log_p).sum(axis=2).mean(), rel=1e-3)


def test_stats_of_pairs_that_are_struck_in_one_view(tmp_path: Path) -> None:
    case = make_case(ROWS, mix="mixup", views=3, struck=STRUCK)
    store = write_store(tmp_path / "a.kd", case)
    stats = store_stats(store)
    tops = case.logits.argmax(axis=2).astype(float)
    for view in range(3):
        tops[view, store.struck(view)] = np.nan
    known = ~np.isnan(tops)
    assert (stats.rows, stats.struck) == (known.sum(), (~known).sum()) == (576, 24)
    pairs = [(tops[a] == tops[b])[known[a] & known[b]] for a in range(3) for b in range(3) if a != b]
    assert stats.agreement == pytest.approx(np.concatenate(pairs).mean())
    several = known.sum(axis=0) > 1
    one_class = np.nanmin(tops[:, several], axis=0) == np.nanmax(tops[:, several], axis=0)
    assert stats.unanimous == one_class.mean()


def test_a_store_without_any_answer_says_so(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", make_case(64, struck=tuple(range(64))))
    with pytest.raises(MissingBlockError, match=r"all committed rows are struck"):
        store_stats(store)


def test_diff_compares_rows_that_both_answered(tmp_path: Path) -> None:
    a = write_store(tmp_path / "a.kd", make_case(ROWS, struck=(3, 70)))
    b = write_store(tmp_path / "b.kd", make_case(ROWS, struck=(70, 90)))
    found = diff_stores(a, b, rows=0)
    assert found.rows is not None
    assert (found.rows.rows, found.rows.agreement, found.rows.kl_ab.max) == (2 * 197, 1.0, 0.0)
    assert not found.same
    assert [(field.field, field.a, field.b) for field in found.content][:1] == [
        ("views-00000-00002 struck", "block 0 strikes 1 samples", "block 0 strikes 0 samples")
    ]
    assert diff_stores(a, Store.open(tmp_path / "a.kd")).same


def test_calibration_leaves_them_out(tmp_path: Path) -> None:
    case = make_case(ROWS, k=None, struck=STRUCK)
    store = write_store(tmp_path / "a.kd", case)
    found, labels = fit_temperature(store), case.labels[answered(store, 0)]
    assert (found.rows, found.rows_without_label) == ((labels >= 0).sum(), (labels < 0).sum())
    logits = case.logits[0, answered(store, 0)][labels >= 0].astype("f8")
    truth = -log_softmax(logits, axis=1)[np.arange(len(logits)), labels[labels >= 0]].mean()
    assert found.nll_before == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize(("k", "mix"), [(5, "none"), (5, "mixup"), (None, "cutmix")])
def test_recode_carries_them(tmp_path: Path, k: int | None, mix: str) -> None:
    """What is recoded is as it is from a store that could decode them."""
    store = write_store(tmp_path / "a.kd", make_case(ROWS, k=k, mix=mix, features=3, struck=STRUCK))
    write_store(tmp_path / "b.kd", make_case(ROWS, k=k, mix=mix, features=3))
    _, cut = recoded(tmp_path / "a.kd", tmp_path / "c.kd", top_k=3)
    _, twin = recoded(tmp_path / "b.kd", tmp_path / "d.kd", top_k=3)
    assert cut.segments[0].struck().tolist() == list(STRUCK)
    for view in (0, 1):
        rows, wanted = (each.load(view, answered(store, view), features=True).arrays for each in (cut, twin))
        assert {"classes", "gaps", "tail", "label", "pixels", "features"} <= set(rows)
        for name, values in wanted.items():
            np.testing.assert_array_equal(rows[name], values, err_msg=name)
    np.testing.assert_array_equal(cut.segments[0].canary(1), store.segments[0].canary(1))


def test_recode_carries_them_into_larger_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(tmp_path / "a.kd", make_case(ROWS, mix="mixup", struck=STRUCK))
    with monkeypatch.context() as patch:
        patch.setattr(segment_layout, "BLOCKS_WANTED", 1)
        store = write_store(tmp_path / "b.kd", make_case(ROWS, mix="mixup", struck=STRUCK))
        assert store.segments[0].layout.block == 128
        assert [commit.struck for commit in store.segments[0].commits().values()] == [(3, 70, 90), (199,)]
        _, cut = recoded(tmp_path / "b.kd", tmp_path / "c.kd", top_k=3)
        assert cut.struck(1).tolist() == store.struck(1).tolist()


def test_live_checks_ask_for_rows_with_an_answer_in_every_view(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", make_case(ROWS, mix="mixup", struck=STRUCK))
    struck = np.union1d(store.struck(0), store.struck(1))
    assert len(struck) == 12
    assert _committed_positions(store).tolist() == np.setdiff1d(np.arange(ROWS), struck).tolist()
    assert 10 < row_bytes(store) < 60


def test_inspect_and_card_count_them(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", make_case(ROWS, struck=(0, 2, 70)))
    assert describe_store(store)["struck"] == 3
    assert [row["position"] for row in describe_rows(store, 3, 1)] == [1, 3, 4]
    assert "200 rows, 3 samples without an answer" in readme(store)
    whole = write_store(tmp_path / "b.kd", make_case(ROWS))
    assert describe_store(whole)["struck"] == 0
    assert "without an answer" not in readme(whole)


@pytest.mark.parametrize(
    "case", [make_case(ROWS, mix="mixup", struck=STRUCK), make_case(ROWS, sequence=8)], ids=["struck", "sequence"]
)
def test_stores_travel_and_are_joined(tmp_path: Path, case: Case) -> None:
    store = write_store(tmp_path / "a.kd", case)
    parts = []
    for name, blocks in (("left", (0, 2)), ("right", (1, 3))):
        part = create_store(tmp_path / f"{name}.kd", case)
        write_views(part, 0, case.logits, blocks, struck=case.struck)
        parts.append(str(tmp_path / f"{name}.kd"))
    merged = merge_stores(parts, str(tmp_path / "merged.kd"))
    assert merged.content_id == store.content_id
    pull(str(tmp_path / "a.kd"), str(tmp_path / "pulled.kd"))
    export_store(str(tmp_path / "a.kd"), str(tmp_path / "a.zip"))
    for name in ("merged.kd", "pulled.kd", "a.zip"):
        copy = Store.open(tmp_path / name)
        assert copy.content_id == store.content_id
        assert copy.struck(1).tolist() == store.struck(1).tolist()
        assert copy.identity.dataset.sequence == store.identity.dataset.sequence
        assert inspect_files(str(tmp_path / name)).whole


def test_sequences_are_measured_compared_and_recoded(tmp_path: Path) -> None:
    case = make_case(ROWS, sequence=8, packing="residuals")
    store = write_store(tmp_path / "a.kd", case)
    assert store_stats(store).rows == 2 * (case.labels >= 0).sum()  # others are padding, or a prompt
    assert diff_stores(store, Store.open(tmp_path / "a.kd")).same
    assert fit_temperature(store).rows == (case.labels >= 0).sum()
    assert describe_store(store)["sequence"] == 8
    assert "| tokens of a text | 8 |" in readme(store)
    _, cut = recoded(tmp_path / "a.kd", tmp_path / "b.kd", top_k=3)
    assert (cut.identity.dataset.sequence, "canary" in cut.segments[0].layout.arrays) == (8, False)
    np.testing.assert_array_equal(cut.read(1, np.arange(ROWS)).top_class, store.read(1, np.arange(ROWS)).top_class)
