"""verify and seals: which seal counts, what is told of the others, and what is said of checks that cannot run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InterruptedRunError, StoreNotFoundError
from kdcache.pipelines.extract.stage import extract
from kdcache.store.commits import read_commit
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import BLOCKS, ROWS, Stage, stop_after
from tests.kits.stores import Case, all_files, commit_logits, create_store, make_case, write_store
from tests.pipelines.test_verify import DATA, TEACHER, failed, verdict

stage = stages.stage


@pytest.fixture
def case() -> Case:
    return make_case(150)


def redo(path: Path, logits: Any, *, device: str) -> None:
    """Damage block 1, repair, and commit it again as another machine would."""
    store = Store.open_for_writing(path)
    layout = store.segments[0].layout
    path.joinpath(layout.arrays["tail"].key(1)).write_bytes(b"torn")
    assert "1 blocks were removed" in verdict(path, repair=True).repair
    assert commit_logits(store, store.segments[0], 1, logits, device=device) is not None


@pytest.mark.parametrize("other", [False, True], ids=["equal shards", "other shards"])
def test_repair_on_another_machine_ends_in_a_whole_store(tmp_path: Path, case: Case, other: bool) -> None:
    path = tmp_path / "a.kd"
    old = write_store(path, case).content_id
    redo(path, case.logits + np.float32(other) * case.logits[..., ::-1], device="another")
    found = verdict(path)
    assert failed(found) == ["files"]
    assert len(found.findings) == 1
    assert "is not the commit that the latest seal lists" in found.findings[0]
    assert found.repair == f"kdcache seal {path}"
    before = all_files(path)
    assert verdict(path, repair=True).repair == found.repair
    assert all_files(path) == before  # good blocks are nobody's to delete
    new = Store.open_for_writing(path).seal().content_id
    assert new != old
    found = verdict(path)
    assert found.whole
    assert (found.findings, found.repair) == ((), "")
    assert [f"seal {old}"[:17] in note and "no longer served" in note for note in found.notes] == [True] * other
    pinned = verdict(f"{path}@{old}")
    assert pinned.whole == (not other)
    assert pinned.repair == (f"open the latest seal instead ({path}), or restore the sealed files from another copy"
                             if other else "")  # fmt: skip
    assert verdict(f"{path}@{new.upper()}").whole


def test_a_pin_is_accepted_and_told(stage: Stage, tmp_path: Path) -> None:
    pin = Store.open(stage.store).content_id
    found = verdict(f"{stage.store}@{pin}", **DATA, rows=8)
    assert found.whole
    assert [note for note in found.notes if "was asked for; all other files of the store were checked too" in note]
    with pytest.raises(StoreNotFoundError, match=r"has no seal|names 0 seals"):
        verdict(f"{stage.store}@{'0' * 64}")
    store = stage.copy(tmp_path / "digits.kd")
    (store / "views-00000-00002/tail/c/0/0/1").write_bytes(b"torn")
    assert verdict(f"{store}@{pin}").repair.startswith(f"kdcache verify {store} --repair")
    assert "1 blocks were removed" in verdict(f"{store}@{pin}", repair=True).repair


def test_repair_goes_on_where_a_folder_is_gone(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "a.kd"
    store = write_store(path, case)
    (path / store.segments[0].layout.arrays["classes"].key(0)).unlink()
    for block in (1, 2):
        path.joinpath(store.segments[0].layout.arrays["label"].key(block)).unlink()
    gone = path / store.segments[0].layout.arrays["gaps"].path / "c"
    for file in sorted(gone.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    gone.rmdir()
    assert "3 blocks were removed" in verdict(path, repair=True).repair


def test_a_torn_shard_without_a_commit_is_found_and_removed(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "a.kd"
    store = create_store(path, case)
    segment = store.add_segment(ViewSpan(0, 2))
    for block in (0, 1):
        commit_logits(store, segment, block, case.logits)
    path.joinpath(segment.layout.commit_key(1)).unlink()
    assert failed(verdict(path)) == ["complete"]
    path.joinpath(segment.layout.arrays["label"].key(1)).write_bytes(b"torn")
    found = verdict(path)
    assert failed(found) == ["files", "complete"]
    assert "label/c/0/1 was left there torn" in found.findings[0]
    assert "1 blocks were removed" in verdict(path, repair=True).repair
    assert failed(verdict(path)) == ["complete"]
    assert commit_logits(store, segment, 1, case.logits) == read_commit(store.folder, segment.layout, 1)


def test_an_unfinished_store_is_asked_again_where_it_is_committed(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "part.kd"
    stop, progress = stop_after(4)
    with pytest.raises(InterruptedRunError):
        extract(stage.asked(path), progress=progress, stop=stop)
    blocks = len(Store.open(path).segments[0].commits())
    assert 0 < blocks < BLOCKS
    found = verdict(path, **DATA, **TEACHER, weights=stage.weights, rows=0)
    assert failed(found) == ["complete"]
    assert f"views of {64 * blocks} rows drawn again, 0 differ" in found.checks[4].detail
    assert f"{64 * blocks} rows of view 0" in found.checks[6].detail


def test_a_store_without_views_says_what_did_not_run(stage: Stage, tmp_path: Path) -> None:
    whole = Store.open(stage.store)
    dataset = {"order": whole.order, "labels": whole.labels}
    Store.create(tmp_path / "a.kd", whole.identity, provenance=whole.manifest.provenance, **dataset)
    found = verdict(tmp_path / "a.kd", **DATA, **TEACHER, weights=stage.weights)
    assert failed(found) == ["contents", "pixels", "teacher weights", "teacher answers"]
    assert found.repair == "the same `kdcache extract` that made the store finishes it"
    assert {check.detail for check in found.checks[3:]} == {
        "not run: no row is committed in every segment of the store"
    }


def test_checks_that_wrong_files_prevent_are_named(stage: Stage, tmp_path: Path) -> None:
    store = stage.copy(tmp_path / "digits.kd")
    (store / "views-00000-00002/tail/c/0/0/1").unlink()
    found = verdict(store, **DATA)
    assert failed(found) == ["files", "data set", "contents", "pixels"]
    found = verdict(store, **DATA, **TEACHER, weights=stage.weights, rows=ROWS)
    assert failed(found) == ["files", "data set", "contents", "pixels", "teacher weights", "teacher answers"]
    assert {check.detail for check in found.checks[2:]} == {"not run: 1 files are wrong"}
    assert "--repair" in found.repair
