"""extract: resuming, refusing another identity, views added later, and what a teacher may not answer."""

import json
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InterruptedRunError
from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import BLOCKS, ROWS, Stage, stop_after
from tests.kits.stores import all_files

stage = stages.stage


def test_a_finished_extraction_run_again_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    path = stage.copy(tmp_path / "digits.kd")
    summary = extract(stage.asked(path))
    assert summary.blocks_done_before == summary.blocks == BLOCKS
    assert summary.content_id == Store.open(stage.store).content_id
    assert all_files(path) == all_files(Path(stage.store))


def test_bytes_do_not_depend_on_workers_nor_on_the_batch(stage: Stage, tmp_path: Path) -> None:
    extract(stage.asked(tmp_path / "two.kd", workers=2))
    assert all_files(tmp_path / "two.kd") == all_files(Path(stage.store))


def test_another_library_version_is_reported_not_refused(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "digits.kd"
    stop, progress = stop_after(5)
    with pytest.raises(InterruptedRunError):
        extract(stage.asked(path), progress=progress, stop=stop)
    manifest = path / "kdcache/manifest.json"
    record = json.loads(manifest.read_bytes())
    record["provenance"]["versions"]["torch"] = "2.0.0"
    manifest.write_text(json.dumps(record))
    assert extract(stage.asked(path)).content_id is not None
    assert Store.open(path).manifest.provenance.versions["torch"] == "2.0.0"


def test_more_views_make_a_second_segment_and_a_second_seal(stage: Stage, tmp_path: Path) -> None:
    path = stage.copy(tmp_path / "digits.kd")
    old = all_files(path)
    pin = Store.open(path).content_id
    summary = extract(stage.asked(path, views="2:4"))
    assert (summary.views, Store.open(path).every_view) == (ViewSpan(2, 4), (0, 1, 2, 3))
    assert summary.content_id not in (None, pin)
    assert Store.open(f"{path}@{pin}").every_view == (0, 1)
    new = all_files(path)
    assert {name for name in old if new[name] != old[name]} == {"kdcache/seals/latest"}
    extract(stage.asked(tmp_path / "four.kd", views="4"))
    rows = np.arange(ROWS)
    for view in range(4):
        soft, same = (Store.open(each).load(view, rows) for each in (path, tmp_path / "four.kd"))
        assert all(np.array_equal(soft.arrays[name], same.arrays[name]) for name in same.arrays)


def test_an_unsealed_store_is_left_open(stage: Stage, tmp_path: Path) -> None:
    assert extract(stage.asked(tmp_path / "digits.kd", seal=False)).content_id is None
    assert Store.open(tmp_path / "digits.kd").content_id is None


def test_masked_classes_hold_nothing(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "digits.kd"
    extract(stage.asked(path, mask_classes=(3, 7)))
    soft = Store.open(path).read(0, np.arange(ROWS))
    assert not np.isin(soft.classes, (3, 7)).any()
    assert np.isnan(soft.label[np.isin(Store.open(path).labels, (3, 7))]).all()


@pytest.mark.parametrize("encoding", ["topk", "full"])
def test_features_and_head_give_the_logits_back(stage: Stage, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "digits.kd"
    extract(stage.asked(path, keep=("features", "head"), encoding=encoding, top_k=10 if encoding == "full" else 3))
    store = Store.open(path)
    rows = store.load(1, np.arange(ROWS), features=True)
    features = rows.arrays["features"].astype(np.float32)
    assert features.shape == (ROWS, 16)
    head = store.head()
    logits = features @ head["weight"].T + head["bias"]
    logits -= logits.max(axis=1, keepdims=True)
    error = 2.0**-10 * np.abs(features).max() * np.abs(head["weight"]).sum(axis=1).max()
    soft = rows.soft_labels()
    if encoding == "full":
        assert np.abs(logits - soft.logits).max() < error
    else:
        kept = np.take_along_axis(logits, soft.classes.astype(np.int64), axis=1)
        assert np.abs(kept - kept.max(axis=1, keepdims=True) - soft.logits).max() < error + 1 / 16


def test_the_given_order_is_kept(stage: Stage, tmp_path: Path) -> None:
    extract(stage.asked(tmp_path / "given.kd", order="given"))
    given, shuffled = Store.open(tmp_path / "given.kd"), Store.open(stage.store)
    assert np.array_equal(given.order, np.arange(ROWS))
    assert sorted(shuffled.order) == list(range(ROWS))
    assert not np.array_equal(shuffled.order, np.arange(ROWS))
    first, second = (each.load(1, np.argsort(each.order)).arrays["classes"] for each in (given, shuffled))
    assert (first == second).mean() > 0.999  # another batch may round another way


def test_all_logits_are_kept_where_top_k_would_keep_them_all(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "digits.kd"
    extract(stage.asked(path, top_k=10, parents=("ab" * 32, "cd" * 32)))
    identity = Store.open(path).identity
    assert (identity.encoding.name, identity.encoding.k) == ("full", None)
    assert identity.parents == ("ab" * 32, "cd" * 32)
    full, topk = (Store.open(each).read(0, np.arange(ROWS)) for each in (path, stage.store))
    assert np.array_equal(full.logits.argmax(axis=1), topk.classes[:, 0])


def test_mixed_views_keep_both_labels(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "digits.kd"
    summary = extract(stage.asked(path, mix="cutmix"))
    assert summary.accuracy_views is not None
    assert Store.open(path).read(0, np.arange(ROWS)).label.shape == (ROWS, 2)
