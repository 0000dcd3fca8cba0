"""A sealed store in a folder that may not be written, or not even listed, is read as any other, and stays as it is."""

import ctypes
import os
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.errors import StoreError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.store.inspection import describe_rows, describe_store
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.views.sources import open_data
from tests.kits import stages
from tests.kits.batches import batches_left
from tests.kits.forks import forks
from tests.kits.stages import ROWS, Stage, student
from tests.kits.stores import all_files

stage = stages.stage

OVERRIDES = ~0b1110  # of Linux's capabilities: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
CAPABILITIES_3 = 0x20080522


def obey_modes() -> None:
    """Root ignores modes: give up the capabilities that let it, so that an owner's modes bind this process."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0, os.strerror(ctypes.get_errno())
    for low in (0, 1):  # effective, permitted
        sets[low] &= OVERRIDES & 0xFFFFFFFF
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


def state(store: Path) -> dict[str, tuple[int, int]]:
    """Mode and time of change of every folder and file."""
    paths = [store, *sorted(store.rglob("*"))]
    return {str(path.relative_to(store)): (path.stat().st_mode, path.stat().st_mtime_ns) for path in paths}


@pytest.fixture
def sealed(stage: Stage, tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A copy of the sealed store whose folders get a mode and whose files get 0444."""
    store = stage.copy(tmp_path / "sealed.kd")
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]

    def lock(mode: int) -> Path:
        for path in store.rglob("*"):
            if path.is_file():
                path.chmod(0o444)
        for folder in reversed(folders):
            folder.chmod(mode)
        return store

    yield lock
    for folder in folders:
        folder.chmod(0o755)


def in_child(work: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """What some work gives in a process that obeys modes; its traceback where it fails."""
    here, there = forks.Pipe()
    process = forks.Process(target=_answer, args=(there, work, given))
    process.start()
    there.close()
    found: dict[str, Any] | str = here.recv()
    process.join()
    assert isinstance(found, dict), found
    return found


def _answer(there: Connection, work: Callable[..., dict[str, Any]], given: tuple[Any, ...]) -> None:
    try:
        obey_modes()
        there.send(work(*given))
    except BaseException:
        there.send(traceback.format_exc())
        raise


def read(store: Path, run: Path) -> dict[str, Any]:
    """Train by seal and by pin, inspect, read all labels; and what the modes themselves allow."""
    pinned = f"{store}@{Store.open(store).content_id}"
    opened = Store.open(pinned)
    runs = [train(student(run / str(n), store=(url,), epochs=1)) for n, url in enumerate((str(store), pinned))]
    return {
        "steps": [each.steps for each in runs],
        "state": [describe_store(each)["state"] for each in (Store.open(store), opened)],
        "rows": len(describe_rows(opened, 5, None)),
        "labels": [opened.load(view, np.arange(ROWS)).arrays["classes"].tobytes() for view in opened.every_view],
        "listed": may(lambda: os.listdir(store)),
        "written": may(lambda: (store / "new").write_bytes(b"x")),
        "rewritten": may(lambda: open(store / "zarr.json", "r+b").close()),
    }


def may(act: Callable[[], Any]) -> bool:
    try:
        act()
    except PermissionError:
        return False
    return True


def judge(store: Path) -> dict[str, Any]:
    """verify, with and without the data set; and that it refuses to mend what may not be written."""
    alone = verify(VerifySettings(store=str(store)))
    living = verify(VerifySettings(store=str(store), data="digits", data_set={"limit": ROWS}, rows=20))
    return {"whole": [alone.whole, living.whole], "listed": may(lambda: os.listdir(store))}


def refused(store: Path) -> dict[str, Any]:
    try:
        verify(VerifySettings(store=str(store)))
    except StoreError as error:
        return {"said": str(error)}
    return {"said": "nothing"}


@pytest.mark.parametrize(("mode", "listed"), [(0o555, True), (0o111, False)], ids=["read only", "no listing"])
def test_train_and_inspect_need_no_writing_and_no_listing(
    stage: Stage, sealed: Callable[[int], Path], tmp_path: Path, mode: int, listed: bool
) -> None:
    store = sealed(mode)
    before, files = state(store), all_files(store)
    found = in_child(read, store, tmp_path / "runs")
    assert (found["listed"], found["written"], found["rewritten"]) == (listed, False, False), "the modes did not bind"
    assert found["steps"] == [5, 5]
    assert found["state"] == ["sealed", "sealed"]
    assert found["rows"] == 5
    whole = Store.open(stage.store)
    assert found["labels"] == [
        whole.load(view, np.arange(ROWS)).arrays["classes"].tobytes() for view in whole.every_view
    ]
    assert (state(store), all_files(store)) == (before, files)


def test_verify_needs_no_writing(sealed: Callable[[int], Path]) -> None:
    store = sealed(0o555)
    before, files = state(store), all_files(store)
    assert in_child(judge, store) == {"whole": [True, True], "listed": True}
    assert (state(store), all_files(store)) == (before, files)


def test_verify_without_listing_says_so(sealed: Callable[[int], Path]) -> None:
    assert "cannot be opened (Permission denied); mend its permissions" in in_child(refused, sealed(0o111))["said"]


def test_readers_keep_the_seal_they_opened_while_views_are_added(stage: Stage, tmp_path: Path) -> None:
    store = stage.copy(tmp_path / "digits.kd")
    data = open_data("digits", {"limit": ROWS})
    first = Store.open(store)
    pinned = f"{store}@{first.content_id}"
    loaders = [Loader(data, [Store.open(url)], batch_size=64, epochs=4) for url in (str(store), pinned)]
    readers = [batches_left(loader) for loader in loaders]
    seen = [[next(reader)] for reader in readers]
    added = extract(stage.asked(store, views="2:4"))
    for batches, reader in zip(seen, readers, strict=True):
        batches.extend(reader)
        assert {batch.view for batch in batches} == {0, 1}
        for batch in batches:
            expected = first.read(batch.view, batch.positions.numpy())
            assert batch.teachers[0].logits.tolist() == np.asarray(expected.logits).tolist()
    assert Store.open(pinned).every_view == (0, 1)
    assert Store.open(store).every_view == (0, 1, 2, 3)
    assert Store.open(store).content_id == added.content_id != first.content_id
