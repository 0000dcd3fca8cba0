"""Computations over a copy without taps: they say so, count what is there, and refuse what needs the taps."""

from pathlib import Path

import pytest

from kdcache.cli.app import main
from kdcache.errors import MissingBlockError
from kdcache.labels.topk import TopKEncoding
from kdcache.sharing.cards import readme
from kdcache.sharing.croissant import croissant
from kdcache.store.store import Store
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.stats import store_stats
from kdcache.whole_store.verify import forget_blocks, inspect_files
from tests.kits.damage import FIRST, ROWS
from tests.kits.recode import recoded
from tests.kits.stores import commit_logits, make_case
from tests.kits.tapless import BOTH, NOTES, copied, shard_bytes, two_taps


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_taps(tmp_path_factory.mktemp("tapless") / "rich.kd")


@pytest.fixture(scope="module")
def copy(rich: Path) -> Path:
    return copied(rich, rich.parent / "copy.kd", "taps")


def test_stats_are_of_what_is_there(rich: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, whole = store_stats(Store.open(copy)), store_stats(Store.open(rich))
    assert (found.without, whole.without) == (("layer1", "layer2.0@1x1"), ())
    assert [output.name for output in found.outputs] == ["features"]
    assert found.outputs[0] == whole.outputs[0]
    assert found.bytes == whole.bytes - shard_bytes(rich, "taps.0", "taps.1")
    assert not {"taps.0", "taps.1"} & {array.name for array in found.arrays}
    assert (found.entropy, found.kept) == (whole.entropy, whole.kept)
    with pytest.raises(SystemExit):
        main(["stats", str(copy)])
    assert "without taps         : layer1, layer2.0@1x1" in capsys.readouterr().out


def test_diff_compares_what_both_hold(rich: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    difference = diff_stores(Store.open(copy), Store.open(rich))
    assert difference.same
    assert difference.rows is not None
    assert [output.name for output in difference.rows.outputs] == ["features"]
    assert [segment.without for segment in difference.a.segments] == [("layer1", "layer2.0@1x1")] * 2
    assert [segment.without for segment in difference.b.segments] == [()] * 2
    with pytest.raises(SystemExit) as ended:
        main(["diff", str(copy), str(rich)])
    assert ended.value.code == 0
    assert "without taps layer1" in capsys.readouterr().out


def test_diff_does_not_guess_at_taps_whose_files_differ(rich: Path, tmp_path: Path) -> None:
    """A store of other taps under equal soft labels, copied without them: neither same nor different."""
    store = Store.open_for_writing(copied(rich, tmp_path / "other.kd"))
    segment = store.segments[0]
    commit = segment.commit_of(1)
    shard = commit.shards["taps.0"].model_copy(update={"sha256": "0" * 64})
    other_commit = commit.model_copy(update={"shards": commit.shards | {"taps.0": shard}})
    store.folder.replace(segment.layout.commit_key(1), other_commit.to_bytes())
    store.seal()
    with pytest.raises(MissingBlockError, match=r"other\.kd is a copy without taps layer1 of views 0:2"):
        diff_stores(Store.open(copied(tmp_path / "other.kd", tmp_path / "x/other.kd", "taps")), Store.open(rich))


def test_recode_carries_no_tap_that_is_not_there(rich: Path, copy: Path, tmp_path: Path) -> None:
    for drop in ((), ("tap:layer1",)):
        with pytest.raises(MissingBlockError, match=r"copy\.kd is a copy without taps .*layer2\.0@1x1 of views 0:2"):
            recoded(copy, tmp_path / "out.kd", top_k=3, drop=drop)
        assert not (tmp_path / "out.kd").exists()
    stores = [recoded(path, tmp_path / path.name, drop=("taps",))[1] for path in (copy, rich)]
    assert stores[0].content_id == stores[1].content_id


def test_a_card_counts_what_is_there(rich: Path, copy: Path) -> None:
    text = readme(Store.open(copy))
    assert "layer1 2x3 (views 0:2, 2:3 were left out)" in text
    files = croissant(Store.open(copy))
    assert "taps.0" not in str(files)
    assert "taps.0" in str(croissant(Store.open(rich)))


def test_a_damaged_block_of_a_copy_is_repaired(rich: Path, tmp_path: Path) -> None:
    """It is forgotten whole, and extracted again it has its taps; the others stay as they are."""
    copy = copied(rich, tmp_path / "copy.kd", "taps")
    (copy / FIRST / "gaps/c/0/1/0").write_bytes(b"")
    found = inspect_files(str(copy))
    assert forget_blocks(str(copy), found.findings) == [(FIRST, 1)]
    again = inspect_files(str(copy))
    assert (again.findings, again.missing, again.notes[:2]) == ((), 1, NOTES)
    case = make_case(ROWS, views=3, encoding=TopKEncoding(k=5, **BOTH), seed=1)
    store = Store.open_for_writing(copy)
    assert commit_logits(store, store.segments[0], 1, case.logits[:2], struck=(70,)) is not None
    store.seal()
    found = inspect_files(str(copy))
    assert (found.whole, found.notes[-2:]) == (True, NOTES)
    assert "is no longer served: 1 of its blocks" in found.notes[0]
    for position in (0, 100):
        with pytest.raises(MissingBlockError, match="copy without taps layer1 of views 0:2"):
            Store.open(copy).load(0, [position], taps=["layer1"])
