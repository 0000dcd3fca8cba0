"""Every crash point: a writer dies, or its disk fills up, at each single step; who comes next ends in a whole store.

Then the same writer goes on, or another one whose logits differ, or verify looks: rows are right, or an error is clear.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kdcache.errors import KdcacheError, StoreError, StoreNotFoundError
from kdcache.labels.encoding import Encoding, Tap
from kdcache.labels.sampled import SampledEncoding
from kdcache.labels.topk import TopKEncoding
from kdcache.store.commits import read_commit
from kdcache.store.store import Store
from kdcache.whole_store.verify import forget_blocks, inspect_files
from tests.kits.crash import ROWS, Disk, Killed, files_of, on, remembered, steps_of, write_all
from tests.kits.stores import Case, make_case

STRUCK = (3, 66)
KEYS: dict[str, Encoding] = {  # each array that a block can have
    "top-k": TopKEncoding(k=5, taps=(Tap(name="layer1", shape=(2, 3)),), contents="bytes"),
    "sampled": SampledEncoding(draws=6, contents="values"),
}
EVERYTHING = np.setdiff1d(np.arange(ROWS), STRUCK)


@pytest.fixture(scope="module", autouse=True)
def _encoded_once() -> Iterator[None]:
    with remembered():
        yield


@pytest.fixture(scope="module", params=KEYS.values(), ids=KEYS)
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(ROWS, struck=STRUCK, encoding=request.param)


@pytest.fixture(scope="module")
def noisy(case: Case) -> Case:
    """The same teacher on another device: other last bits, and here and there another class."""
    noise = np.random.RandomState(5).normal(0, 0.2, case.logits.shape).astype("f4")
    return Case(case.identity, case.order, case.labels, case.logits + noise, case.struck)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory, case: Case) -> Path:
    path = tmp_path_factory.mktemp("truth") / "a.kd"
    write_all(path, case)
    return path


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, noisy: Case) -> Path:
    path = tmp_path_factory.mktemp("other") / "a.kd"
    write_all(path, noisy)
    return path


def crash(path: Path, case: Case, at: int) -> None:
    with on(Disk(at)), pytest.raises(Killed):
        write_all(path, case)


def look(path: Path, truth: Path) -> None:
    """Verify never blames a crash on a committed block, and what can be read is right."""
    try:
        found = inspect_files(str(path))
        store = Store.open(path)
    except StoreNotFoundError:
        return
    assert [finding for finding in found.findings if finding.block is not None] == []
    for segment in store.segments:
        for block in segment.commits():
            positions = np.setdiff1d(np.arange(*segment.layout.block_rows(block)), STRUCK)
            read, right = (Store.open(each).load(1, positions).arrays for each in (path, truth))
            assert all(np.array_equal(read[name], right[name]) for name in right)


def writers_of(path: Path, truth: Path, other: Path) -> list[set[str]]:
    """Whose bytes each block holds. Every shard is one writer's; a block of both says that it is mixed."""
    store = Store.open(path)
    (segment,) = store.segments
    found = []
    for block, spec_of in enumerate(segment.layout.arrays_of(block) for block in range(segment.layout.blocks)):
        owners = set()
        for spec in spec_of.values():
            data, first, second = ((each / spec.key(block)).read_bytes() for each in (path, truth, other))
            assert data in (first, second), f"{spec.key(block)} is nobody's"
            owners |= {"first"} if first != second and data == first else {"second"} if first != second else set()
        commit = read_commit(store.folder, segment.layout, block)
        assert commit is not None
        assert commit.mixed or len(owners) == 1, f"block {block} is mixed in silence"
        found.append(owners)
    return found


def test_a_death_at_every_step_of_writing(tmp_path: Path, case: Case, noisy: Case, truth: Path, other: Path) -> None:
    steps = steps_of(lambda: write_all(tmp_path / "counted.kd", case))
    assert {"open", "write", "fsync", "link", "unlink", "replace", "mkdir"} == set(steps)
    assert len(steps) > 200
    whole, seen = files_of(truth), set()
    for at in range(len(steps)):
        path, twin = tmp_path / f"{at}.kd", tmp_path / f"{at}-twin.kd"
        crash(path, case, at)
        look(path, truth)
        if path.exists():
            shutil.copytree(path, twin)
        write_all(path, case)
        assert files_of(path) == whole, f"step {at}, {steps[at]}: the same writer ends elsewhere"
        write_all(twin, noisy)
        seen.update(map(frozenset, writers_of(twin, truth, other)))
        for each in (path, twin):
            shutil.rmtree(each)
    assert seen == {frozenset({"first"}), frozenset({"second"}), frozenset({"first", "second"})}


def test_a_full_disk_at_every_step_of_writing(tmp_path: Path, case: Case, truth: Path) -> None:
    """The error names the space, nothing half written is left under a key, and the resumed store is byte-equal."""
    steps = steps_of(lambda: write_all(tmp_path / "counted.kd", case))
    whole = files_of(truth)
    for at, step in enumerate(steps):
        path = tmp_path / f"{at}.kd"
        if step not in ("open", "write", "link", "mkdir", "replace"):
            continue  # needs no space, and fails at the next step that does
        said = rf"{tmp_path}.* cannot be written .No space left on device"
        with on(Disk(at, full=True)), pytest.raises(StoreError, match=said):
            write_all(path, case)
        assert files_of(path).items() <= whole.items(), f"step {at}, {step}: something half written"
        write_all(path, case)
        assert files_of(path) == whole
        shutil.rmtree(path)


def test_a_death_at_every_step_of_a_repair(tmp_path: Path, case: Case, truth: Path) -> None:
    """Commits go first: what is half removed does not exist, and extract redoes it."""
    hurt = tmp_path / "hurt.kd"
    shutil.copytree(truth, hurt)
    layout = Store.open(truth).segments[0].layout
    for block in (0, 1):
        key = layout.arrays["label"].key(block)
        (hurt / key).write_bytes((hurt / key).read_bytes()[:-1])
    findings = inspect_files(str(hurt)).findings
    shutil.copytree(hurt, tmp_path / "counted.kd")
    steps = steps_of(lambda: forget_blocks(str(tmp_path / "counted.kd"), findings))
    assert len(steps) > 20
    for at in range(len(steps)):
        path = tmp_path / f"{at}.kd"
        shutil.copytree(hurt, path)
        with on(Disk(at)), pytest.raises(Killed):
            forget_blocks(str(path), findings)
        with pytest.raises(KdcacheError):
            Store.open(path).read(0, EVERYTHING)
        forget_blocks(str(path), inspect_files(str(path)).findings)
        write_all(path, case)
        assert files_of(path) == files_of(truth)
        assert inspect_files(str(path)).whole
        shutil.rmtree(path)


def test_a_death_while_adding_views(tmp_path: Path, case: Case, truth: Path) -> None:
    """The old seal keeps working at every moment; then the new one lists both."""
    more = make_case(ROWS, views=3).logits[2:]

    def add(path: Path) -> None:
        from tests.kits.stores import write_views

        store = Store.open_for_writing(path)
        write_views(store, 2, more)
        store.seal()

    pin = Store.open(truth).content_id
    shutil.copytree(truth, tmp_path / "counted.kd")
    steps = steps_of(lambda: add(tmp_path / "counted.kd"))
    whole = files_of(tmp_path / "counted.kd")
    for at in range(len(steps)):
        path = tmp_path / f"{at}.kd"
        shutil.copytree(truth, path)
        with on(Disk(at)), pytest.raises(Killed):
            add(path)
        assert Store.open(f"{path}@{pin}").every_view == (0, 1)
        assert Store.open(path).every_view in ((0, 1), (0, 1, 2))
        add(path)
        assert files_of(path) == whole
        shutil.rmtree(path)
