"""commits: a block is whole or does not exist, whoever writes it, however often, and wherever a writer dies."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from kdcache.base.canonical import sha256_hex
from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError, FormatError, StoreError
from kdcache.store.commits import Commit, read_commit, totals
from kdcache.store.store import Store
from tests.kits.stores import Case, all_files, commit_logits, create_store, make_case, write_store, write_views

ROWS = 150  # three blocks: 64, 64, 22
REPO = Path(__file__).parents[2]


@pytest.fixture
def case() -> Case:
    return make_case(ROWS)


@pytest.fixture
def abandoned(tmp_path: Path, case: Case) -> Store:
    """A store whose block 1 has all its shards and no commit: its writer died there."""
    store = create_store(tmp_path / "a.kd", case)
    segment = write_views(store, 0, case.logits)
    store.folder.path(segment.layout.commit_key(1)).unlink()
    return Store.open(tmp_path / "a.kd")


def test_a_commit_describes_what_lies_on_disk(tmp_path: Path, case: Case) -> None:
    store = create_store(tmp_path / "a.kd", case)
    segment = write_views(store, 0, case.logits)
    for block, commit in segment.commits().items():
        assert set(commit.shards) == set(segment.layout.arrays_of(block))
        for name, shard in commit.shards.items():
            data = store.folder.path(segment.layout.arrays[name].key(block)).read_bytes()
            assert (shard.sha256, shard.size) == (sha256_hex(data), len(data))
    assert [commit.rows for commit in segment.commits().values()] == [128, 128, 44]
    assert all("canary" in commit.shards for block, commit in segment.commits().items() if block == 0)
    sums = totals(segment.commits())
    assert (sums["rows"], sums["labelled"], sums["mixed_blocks"]) == (300, 3, 0)
    assert sums["bytes"] == sum(shard.size for commit in segment.commits().values() for shard in commit.shards.values())


def test_a_second_writer_with_equal_bytes_commits(abandoned: Store, case: Case) -> None:
    commit = commit_logits(abandoned, abandoned.segments[0], 1, case.logits)
    assert commit is not None
    assert not commit.mixed
    assert len(Store.open(abandoned.folder.root).read(0, np.arange(ROWS)).logits) == ROWS


def test_a_second_writer_with_other_bytes_leaves_then_adopts(abandoned: Store, case: Case) -> None:
    segment, before = abandoned.segments[0], all_files(abandoned.folder.root)
    other = case.logits + np.random.RandomState(1).normal(0, 1, case.logits.shape).astype("f4")
    assert commit_logits(abandoned, segment, 1, other) is None
    assert all_files(abandoned.folder.root) == before
    commit = commit_logits(abandoned, segment, 1, other, adopt=True)
    assert commit is not None
    assert commit.mixed
    # What was adopted is what the dead writer left, so that rows are whole: nothing of `other` was mixed in.
    after = all_files(abandoned.folder.root)
    assert after.keys() - before.keys() == {segment.layout.commit_key(1)}
    assert {name: after[name] for name in before} == before
    assert totals(Store.open(abandoned.folder.root).segments[0].commits())["mixed_blocks"] == 1


def test_a_standing_commit_wins(abandoned: Store, case: Case) -> None:
    segment, before = abandoned.segments[0], all_files(abandoned.folder.root)
    standing = read_commit(abandoned.folder, segment.layout, 0)
    assert commit_logits(abandoned, segment, 0, case.logits + 1, device="another") == standing
    assert all_files(abandoned.folder.root) == before


def test_a_missing_later_shard_is_written(abandoned: Store, case: Case) -> None:
    """The first writer died between two shards: the second one writes the rest."""
    layout = abandoned.segments[0].layout
    for name in ("tail", "label", "pixels"):
        abandoned.folder.path(layout.arrays[name].key(1)).unlink()
    commit = commit_logits(abandoned, abandoned.segments[0], 1, case.logits)
    assert commit is not None
    assert not commit.mixed
    assert len(Store.open(abandoned.folder.root).read(1, np.arange(ROWS)).logits) == ROWS


def test_a_foreign_ticket_alone_takes_the_block(abandoned: Store, case: Case) -> None:
    """The first writer may still be busy with the other shards: nothing of this one may come between them."""
    segment = abandoned.segments[0]
    for name in list(segment.layout.arrays_of(1))[1:]:
        abandoned.folder.path(segment.layout.arrays[name].key(1)).unlink()
    before = all_files(abandoned.folder.root)
    assert commit_logits(abandoned, segment, 1, case.logits[..., ::-1].copy()) is None
    assert all_files(abandoned.folder.root) == before


@pytest.mark.parametrize("name", ["classes", "gaps", "pixels"])
@pytest.mark.parametrize("torn", [b"torn", b"", None], ids=["torn", "empty", "cut"])
def test_a_torn_foreign_shard_is_refused_by_name(abandoned: Store, case: Case, name: str, torn: bytes | None) -> None:
    segment, folder = abandoned.segments[0], abandoned.folder
    path = folder.path(segment.layout.arrays[name].key(1))
    path.write_bytes(path.read_bytes()[:-9] if torn is None else torn)
    with pytest.raises(DamagedError, match=rf"{name}/c/.*torn.*delete this file, or run: kdcache verify .* --repair"):
        commit_logits(abandoned, segment, 1, case.logits, adopt=True)
    assert read_commit(folder, segment.layout, 1) is None
    path.unlink()
    commit = commit_logits(abandoned, segment, 1, case.logits)
    assert commit is not None
    assert not commit.mixed


def test_a_shard_of_another_shape_is_not_adopted(abandoned: Store, case: Case) -> None:
    """The full block's canary-sized neighbour decodes, but not as this array's rows."""
    segment, folder = abandoned.segments[0], abandoned.folder
    arrays = segment.layout.arrays
    shutil.copy(folder.path(arrays["pixels"].key(1)), folder.path(arrays["classes"].key(1)))
    with pytest.raises(DamagedError, match="does not decode"):
        commit_logits(abandoned, segment, 1, case.logits, adopt=True)


def test_two_writers_at_once(tmp_path: Path, case: Case) -> None:
    """Two writers whose teachers differ in the last bits: every row is one writer's, every block is committed once."""
    other = (case.logits * 1.5).astype(np.float32)
    stores = [create_store(tmp_path / "a.kd", case) for _ in range(2)]
    segments = [store.add_segment(ViewSpan(0, 2)) for store in stores]
    barrier = Barrier(2)

    def write(writer: int, logits: np.ndarray) -> list[Commit | None]:
        commits = []
        for block in range(3):
            barrier.wait(60)
            commits.append(commit_logits(stores[writer], segments[writer], block, logits, device=f"writer {writer}"))
        return commits

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(write, range(2), [case.logits, other]))
    for block in range(3):
        standing = read_commit(stores[0].folder, segments[0].layout, block)
        assert standing is not None
        assert all(commit in (None, standing) for commit in (both[0][block], both[1][block]))
    assert Store.open(tmp_path / "a.kd").read(1, np.arange(ROWS)).logits.shape == (ROWS, 5)
    stores[0].seal()


KILLED = """
import os, signal, sys
from tests.kits.stores import create_store, make_case, write_views
from pathlib import Path
links, link = 0, os.link
def dying(source, target, **folders):
    global links
    links += 1
    if links == int(sys.argv[2]) and sys.argv[3] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    link(source, target, **folders)
    if links == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
os.link = dying
case = make_case(150)
store = create_store(Path(sys.argv[1]), case)
write_views(store, 0, case.logits)
store.seal()
"""


@pytest.mark.parametrize(("put", "moment"), [(1, "before"), (3, "after"), (16, "after"), (17, "before"), (21, "after")])
def test_a_killed_writer_is_followed_by_another(tmp_path: Path, case: Case, put: int, moment: str) -> None:
    """SIGKILL at the n-th create-only put; the same commands again end in the very store of an undisturbed run."""
    path = tmp_path / "a.kd"
    command = [sys.executable, "-c", KILLED, str(path), str(put), moment]
    assert subprocess.run(command, cwd=REPO, check=False).returncode == -9
    left = all_files(path)
    assert len([name for name in left if ".tmp-" not in name]) < 25
    write_store(path, case)
    write_store(tmp_path / "undisturbed.kd", case)
    found = {name: data for name, data in all_files(path).items() if ".tmp-" not in name}
    assert found == all_files(tmp_path / "undisturbed.kd")
    assert any(".tmp-" in name for name in left)  # the kill did hit a put


def test_a_commit_of_another_block_or_shape_is_refused(abandoned: Store) -> None:
    layout, folder = abandoned.segments[0].layout, abandoned.folder
    shutil.copy(folder.path(layout.commit_key(2)), folder.path(layout.commit_key(1)))
    with pytest.raises(DamagedError, match=r"is of block 2.*expected block 1"):
        abandoned.read(0, np.array([0]))
    shutil.copy(folder.path(layout.commit_key(0)), folder.path(layout.commit_key(1)))
    with pytest.raises(DamagedError, match=r"is of block 0 with .*canary"):
        abandoned.read(0, np.array([0]))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"block":0', b"\xff\xfe"])
def test_a_broken_commit_is_refused_by_name(abandoned: Store, data: bytes) -> None:
    path = abandoned.folder.path(abandoned.segments[0].layout.commit_key(0))
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"000000\.json"):
        abandoned.read(0, np.array([100]))


def test_foreign_files_among_the_commits_are_not_commits(abandoned: Store) -> None:
    """File managers and network file systems leave files of their own."""
    prefix = abandoned.folder.path(abandoned.segments[0].layout.commits_prefix)
    for name in (".DS_Store", ".nfs0001", "notes.txt", ".tmp-0123"):
        (prefix / "000" / name).write_bytes(b"x")
    assert sorted(abandoned.segments[0].commits()) == [0, 2]


def test_a_sealed_segment_needs_all_its_commits(tmp_path: Path, case: Case) -> None:
    store = write_store(tmp_path / "a.kd", case)
    path = next(tmp_path.glob("a.kd/kdcache/views-*/commits-*.jsonl"))
    assert path.read_bytes().count(b"\n") == 3
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(StoreError, match="sha256"):
        Store.open(store.folder.root).read(0, np.array([0]))
