"""merge: blocks and segments of one identity become one store, whatever dies on the way; all else is refused."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.progress import StopRequest
from kdcache.errors import (
    DamagedError,
    InterruptedRunError,
    InvalidInputError,
    MismatchError,
    MissingBlockError,
    StoreError,
)
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.sharing.merge import merge_stores
from kdcache.store.manifest import Card
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.cli.test_cli import Capture, answer, kdcache, refusal
from tests.kits import stages
from tests.kits.crash import Disk, Killed, files_of, on, remembered, steps_of
from tests.kits.merge import BLOCKS, ROWS, case_of, killed_merge, merges_at_once, part
from tests.kits.stages import Stage
from tests.kits.stores import create_store, make_case, write_store, write_views
from tests.kits.web import serving

stage = stages.stage
EVERYTHING = np.arange(ROWS)


@pytest.fixture
def halves(tmp_path: Path) -> list[str]:
    """Blocks 0 to 2 and 2 to 3 of one segment."""
    return [part(tmp_path / "a.kd", case_of(), (0, 1, 2)), part(tmp_path / "b.kd", case_of(), (2, 3))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one writer alone writes."""
    path = tmp_path_factory.mktemp("whole") / "whole.kd"
    write_store(path, case_of())
    return path


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, bytes]]:
    """Block 0, and blocks 0 and 1, of a segment of two blocks; and the files that they make together."""
    folder, case = tmp_path_factory.mktemp("few"), case_of(rows=70)
    halves = [part(folder / "a.kd", case, (0,)), part(folder / "b.kd", case, (0, 1))]
    write_store(folder / "whole.kd", case)
    return halves, files_of(folder / "whole.kd")


def test_blocks_of_two_machines_become_the_store_of_one(halves: list[str], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.kd"
    merged = merge_stores(halves, str(out))
    assert (merged.taken, merged.blocks, merged.present) == ({halves[0]: 3, halves[1]: 1}, BLOCKS, 0)
    assert merged.missing == ()
    assert merged.content_id == Store.open(whole).content_id
    assert files_of(out) == files_of(whole)
    assert inspect_files(str(out)).whole
    assert merged.bytes == sum(
        shard.size for each in Store.open(out).segments for c in each.commits().values() for shard in c.shards.values()
    )
    again = merge_stores(halves, str(out))
    assert (again.taken, again.present, again.content_id) == (dict.fromkeys(halves, 0), BLOCKS, merged.content_id)


def test_segments_of_three_stores_and_what_is_missing(tmp_path: Path) -> None:
    inputs = [part(tmp_path / f"{first}.kd", case_of(first), range(BLOCKS), first) for first in (0, 2)]
    inputs.append(part(tmp_path / "4.kd", case_of(4), (1, 2), 4))
    out = str(tmp_path / "out.kd")
    merged = merge_stores(inputs, out)
    assert merged.content_id is None
    assert [(each.segment, each.missing, each.blocks, each.first) for each in merged.missing] == [
        ("views-00004-00006", 2, BLOCKS, 0)
    ]
    store = Store.open(out)
    assert store.every_view == (0, 1, 2, 3, 4, 5)
    for view, name in ((1, inputs[0]), (3, inputs[1])):
        assert np.array_equal(
            store.load(view, EVERYTHING).arrays["classes"], Store.open(name).load(view, EVERYTHING).arrays["classes"]
        )
    with pytest.raises(MissingBlockError):
        store.read(4, [0])
    last = part(tmp_path / "rest.kd", case_of(4), (0, 3), 4)
    done = merge_stores([out, last], out)
    assert done.content_id == Store.open(out).content_id
    assert done.taken == {out: 0, last: 2}
    assert inspect_files(out).whole


def test_merging_into_an_input_keeps_its_pins(tmp_path: Path, whole: Path) -> None:
    a = tmp_path / "a.kd"
    shutil.copytree(whole, a)
    pin = Store.open(a).content_id
    b = part(tmp_path / "b.kd", case_of(2), range(BLOCKS), 2)
    merged = merge_stores([str(a), b], str(a))
    assert (merged.present, merged.taken) == (BLOCKS, {str(a): 0, b: BLOCKS})
    assert Store.open(a).every_view == (0, 1, 2, 3)
    assert Store.open(f"{a}@{pin}").every_view == (0, 1)
    assert inspect_files(str(a)).whole


def test_commits_keep_their_provenance_and_the_card_comes_along(tmp_path: Path, halves: list[str]) -> None:
    Store.open(halves[1]).write_card(Card(name="of b", license="CC0-1.0"))
    out = tmp_path / "out.kd"
    merge_stores(halves, str(out))
    key = "kdcache/views-00000-00002/commits/000/000003.json"
    assert (out / key).read_bytes() == (Path(halves[1]) / key).read_bytes()
    assert Store.open(out).card.name == "of b"
    Store.open(halves[1]).write_card(Card(name="another"))
    merge_stores(halves, str(out))
    assert Store.open(out).card.name == "of b"


def test_a_sealed_store_on_a_web_server_and_a_pin(tmp_path: Path, whole: Path) -> None:
    other = part(tmp_path / "more.kd", case_of(2), range(BLOCKS), 2)
    pin = Store.open(whole).content_id
    with serving(whole.parent) as site:
        inputs = [f"{site.url}/whole.kd", other, f"{whole}@{pin}"]
        merged = merge_stores(inputs, str(tmp_path / "out.kd"))
    assert list(merged.taken.values()) == [BLOCKS, BLOCKS, 0]
    assert Store.open(tmp_path / "out.kd").every_view == (0, 1, 2, 3)


def test_other_bytes_of_a_block_are_refused_by_name(tmp_path: Path) -> None:
    """Block 2 lies in both inputs. Leaving one of them out is the way on; its other blocks are extracted again."""
    a, b = (part(tmp_path / f"{seed}.kd", case_of(seed), blocks) for seed, blocks in ((0, (0, 1, 2)), (1, (2, 3))))
    rest, out = part(tmp_path / "rest.kd", case_of(), (3,)), tmp_path / "out.kd"
    with pytest.raises(
        MismatchError, match=r"bytes of 1 blocks:\n  views-00000-00002 block 2, classes: one has"
    ) as error:
        merge_stores([a, b], str(out))
    assert all(text in str(error.value) for text in (a, b, "leave one of them out", "run kdcache extract"))
    assert "nothing that lies in the output" not in str(error.value)
    assert not out.exists()
    files = files_of(Path(a))
    with pytest.raises(MismatchError, match=r"bytes of 1 blocks.*\n.*\n.*nothing that lies in the output is replaced"):
        merge_stores([a, b], a)
    assert files_of(Path(a)) == files
    merged = merge_stores([a, rest], str(out))
    assert (merged.taken, merged.missing) == ({a: 3, rest: 1}, ())
    assert inspect_files(str(out)).whole


def test_what_is_no_pair_of_one_identity_is_refused(tmp_path: Path, whole: Path) -> None:
    a, out = str(whole), str(tmp_path / "out.kd")
    write_store(tmp_path / "k4.kd", make_case(ROWS, k=4))
    with pytest.raises(MismatchError, match=rf"encoding.k: {a} has 5, {tmp_path}/k4.kd has 4"):
        merge_stores([a, str(tmp_path / "k4.kd")], out)
    with pytest.raises(MismatchError, match=rf"encoding.k: {tmp_path}/k4.kd has 4, {a} has 5"):
        merge_stores([a, a], str(tmp_path / "k4.kd"))
    overlapping = part(tmp_path / "1.kd", case_of(), (0,), 1)
    with pytest.raises(InvalidInputError, match=r"views overlap: .* has views-00001-00003, .* has views-00000-00002"):
        merge_stores([a, overlapping], out)
    empty = str(create_store(tmp_path / "empty.kd", case_of()).folder.root)
    with pytest.raises(MissingBlockError, match="has a committed block"):
        merge_stores([empty, empty], out)
    with pytest.raises(InvalidInputError, match="name two or more"):
        merge_stores([a], out)
    with pytest.raises(InvalidInputError, match="is a pin"):
        merge_stores([a, a], f"{out}@{'0' * 32}")
    with pytest.raises(InvalidInputError, match="is read only"):
        merge_stores([a, a], "https://example.invalid/out.kd")
    assert not Path(out).exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("precious")
    with pytest.raises(InvalidInputError, match=r"holds other files .notes.txt."):
        merge_stores([a, a], str(tmp_path / "mine"))


def test_other_classifiers_are_refused(tmp_path: Path) -> None:
    case = make_case(ROWS, head=3)
    heads = [{"weight": np.full((30, 3), value, "f4"), "bias": np.zeros(30, "f4")} for value in (1.0, 2.0)]
    paths = [str(tmp_path / f"{number}.kd") for number in range(3)]
    for path, head in zip(paths, [*heads, heads[0]], strict=True):
        write_views(create_store(Path(path), case, head), 0, case.logits, (0, 1) if path == paths[0] else (2, 3))
    with pytest.raises(MismatchError, match=r"another classifier.*\n  head: "):
        merge_stores(paths[:2], str(tmp_path / "out.kd"))
    merged = merge_stores([paths[0], paths[2]], str(tmp_path / "out.kd"))
    assert merged.content_id is not None
    assert np.array_equal(Store.open(tmp_path / "out.kd").head()["weight"], heads[0]["weight"])


def test_damaged_files_are_not_copied_and_another_input_helps(halves: list[str], whole: Path, tmp_path: Path) -> None:
    """Block 2 lies in both inputs; in one of them a bit is wrong, then in both."""
    out = tmp_path / "out.kd"
    for name in halves:
        shard = Path(name) / "views-00000-00002/tail/c/0/0/2"
        data = bytearray(shard.read_bytes())
        data[20] ^= 1
        shard.write_bytes(bytes(data))
        if name == halves[0]:
            merge_stores(halves, str(tmp_path / "helped.kd"))
            assert files_of(tmp_path / "helped.kd") == files_of(whole)
    with pytest.raises(DamagedError, match=r"tail/c/0/0/2 has sha256 .*, committed was .*verify .*--repair"):
        merge_stores(halves, str(out))
    assert not (out / "views-00000-00002/tail/c/0/0/2").exists()
    assert 2 not in Store.open(out).segments[0].commits()


def test_a_block_counts_for_the_input_that_it_was_read_from(halves: list[str], tmp_path: Path) -> None:
    for gone in list((Path(halves[0]) / "views-00000-00002").rglob("2")):  # a shard, or the folder of one
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert merge_stores(halves, str(tmp_path / "out.kd")).taken == {halves[0]: 2, halves[1]: 2}


def test_files_without_a_commit_are_never_replaced(halves: list[str], whole: Path, tmp_path: Path) -> None:
    out = Path(part(tmp_path / "out.kd", case_of(), (0,)))
    ticket = out / "views-00000-00002/classes/c/0/3/0"
    ticket.parent.mkdir(parents=True)
    ticket.write_bytes(b"another writer's")
    with pytest.raises(StoreError, match=r"left by a writer that has not committed them .views-00000-00002 block 3"):
        merge_stores(halves, str(out))
    assert ticket.read_bytes() == b"another writer's"
    assert sorted(Store.open(out).segments[0].commits()) == [0, 1, 2]
    ticket.write_bytes(
        (whole / "views-00000-00002/classes/c/0/3/0").read_bytes()
    )  # the same bytes: it goes on in place
    merge_stores(halves, str(out))
    assert files_of(out) == files_of(whole)


def test_a_stop_between_blocks_is_resumable(halves: list[str], whole: Path, tmp_path: Path) -> None:
    stop, out = StopRequest(), tmp_path / "out.kd"

    def progress(what: str, done: int, total: int) -> None:
        assert (what, total) == ("merging", BLOCKS)
        stop.requested = done == 2

    with pytest.raises(InterruptedRunError, match="same kdcache merge again"):
        merge_stores(halves, str(out), progress=progress, stop=stop)
    assert len(Store.open(out).segments[0].commits()) == 2
    merge_stores(halves, str(out))
    assert files_of(out) == files_of(whole)


def test_a_death_at_every_third_step_leaves_whole_blocks(
    few: tuple[list[str], dict[str, bytes]], tmp_path: Path
) -> None:
    halves, complete = few
    with remembered():
        steps = steps_of(lambda: merge_stores(halves, str(tmp_path / "counted.kd")))
        assert len(steps) > 200
        for at in range(0, len(steps), 3):
            out = tmp_path / f"{at}.kd"
            with on(Disk(at)), pytest.raises(Killed):
                merge_stores(halves, str(out))
            assert files_of(out).items() <= complete.items()
            merge_stores(halves, str(out))
            assert files_of(out) == complete, f"step {at}, {steps[at]}"
            shutil.rmtree(out)


def test_real_kills_and_merges_at_once(few: tuple[list[str], dict[str, bytes]], tmp_path: Path) -> None:
    halves, complete = few
    steps = steps_of(lambda: merge_stores(halves, str(tmp_path / "counted.kd")))
    for at in np.linspace(0, len(steps) - 1, 5).astype(int).tolist():
        out = tmp_path / f"{at}.kd"
        assert killed_merge(halves, out, at) == -signal.SIGKILL
        assert files_of(out).items() <= complete.items()
        merge_stores(halves, str(out))
        assert files_of(out) == complete
    assert merges_at_once(halves, tmp_path / "both.kd", 2) == [0, 0]
    assert files_of(tmp_path / "both.kd") == complete


def test_views_that_were_extracted_apart_replay_together(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    """The command line on stores of a real teacher; the joined store replays its data and asks its teacher."""
    more, out = tmp_path / "more.kd", tmp_path / "out.kd"
    extract(stage.asked(more, views="2:3"))
    record = answer(capsys, "merge", stage.store, more, out)
    assert record["taken"] == {stage.store: 5, str(more): 5}
    assert record["content_id"] == Store.open(out).content_id
    settings = {"store": str(out), "data": "digits", "data_set": {"limit": stages.ROWS}}
    assert verify(VerifySettings.model_validate(settings)).whole
    assert kdcache("merge", stage.store, more, out, "--no-seal") == 0
    shown = capsys.readouterr().out
    assert f"0 from {more}" in shown
    assert "out.kd, not sealed" in shown
    assert "name two or more" in refusal(capsys, "merge", more, out)
