"""Copies without taps: what is lost counts as lost, a record hides nothing else, mistakes are told."""

import json
import shutil
from pathlib import Path

import pytest

from kdcache.base.units import bytes_text
from kdcache.cli.app import main
from kdcache.errors import (
    DamagedError,
    FormatError,
    InvalidInputError,
    MissingBlockError,
    StoreNotFoundError,
)
from kdcache.places.opening import open_place
from kdcache.sharing.export import export_store
from kdcache.sharing.merge import merge_stores
from kdcache.sharing.push_pull import pull, push
from kdcache.sharing.sealed_files import sealed_files
from kdcache.store.layout import PARTIAL
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.damage import FIRST, all_reads
from tests.kits.stores import all_files, make_case, write_store
from tests.kits.tapless import NOTES, copied, shard_bytes, taps_of, two_taps


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_taps(tmp_path_factory.mktemp("refused") / "rich.kd")


def test_what_is_lost_is_damage(rich: Path, tmp_path: Path) -> None:
    """Soft labels of a copy without taps, taps of a whole one, and those of a copy whose record is gone."""
    copy = copied(rich, tmp_path / "copy.kd", "taps")
    (copy / FIRST / "gaps/c/0/1/0").unlink()
    assert [finding.block for finding in inspect_files(str(copy)).findings] == [(FIRST, 1)]
    whole = copied(rich, tmp_path / "whole.kd")
    (whole / FIRST / "taps.1/c/0/0/0/0/0").unlink()
    assert not inspect_files(str(whole)).whole
    with pytest.raises(DamagedError):
        taps_of(whole, 0, "layer2.0@1x1")
    bare = copied(rich, tmp_path / "bare.kd", "taps")
    (bare / PARTIAL).unlink()
    assert not inspect_files(str(bare)).whole
    with pytest.raises(DamagedError, match=r"taps\.0/zarr\.json is missing"):
        taps_of(bare)


@pytest.mark.parametrize("array", ["classes", "features", "taps.0/../../order", "taps.100", "taps."])
def test_a_record_may_hide_taps_and_nothing_else(rich: Path, tmp_path: Path, array: str) -> None:
    """What a stranger wrote into it: soft labels that were lost are never passed over."""
    copy = copied(rich, tmp_path / "copy.kd", "taps")
    record = json.loads((copy / PARTIAL).read_bytes())
    record["without"][0]["arrays"] = [array]
    (copy / PARTIAL).write_text(json.dumps(record))
    with pytest.raises(FormatError, match=r"partial\.json: without\.0\.arrays\.0"):
        Store.open(copy)
    assert any("partial.json" in finding.what for finding in inspect_files(str(copy)).findings)


def test_a_record_of_other_taps_or_segments_counts_for_nothing(rich: Path, tmp_path: Path) -> None:
    copy = copied(rich, tmp_path / "copy.kd")
    entries = [segment.model_dump(mode="json") for segment in Store.open(rich).seal_record.segments]  # type: ignore[union-attr]
    other = {**entries[1], "digest": "0" * 64}
    record = {"left_out": [], "without": [
        {"segment": entries[0], "arrays": ["taps.9"]}, {"segment": other, "arrays": ["taps.0"]}
    ]}  # fmt: skip
    (copy / PARTIAL).write_text(json.dumps(record))
    assert all_reads(copy) == all_reads(rich)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["tap:layer9"],
            r"--without tap:layer9 was asked of .*rich\.kd, which keeps tap:layer1, tap:layer2\.0@1x1; name",
        ),
        (["taps", "features"], r"--without features was asked of .*, which keeps tap:layer1, tap:layer2\.0@1x1; name"),
        (["tap:layer1,layer2"], r"--without layer2 was asked of .*; name some of these, or taps"),
        ([""], r"--without  was asked of"),
    ],
)
def test_what_the_store_does_not_keep_is_refused(rich: Path, tmp_path: Path, words: list[str], message: str) -> None:
    for call in (pull, push, export_store):
        with pytest.raises(InvalidInputError, match=message):
            call(str(rich), str(tmp_path / ("x.zip" if call is export_store else "x.kd")), without=words)  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []


def test_stores_without_taps_or_a_seal_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "plain.kd", make_case(70))
    with pytest.raises(
        InvalidInputError, match=r"--without taps was asked of .*plain\.kd, which keeps no taps; copy it"
    ):
        push(str(tmp_path / "plain.kd"), str(tmp_path / "x.kd"), without=["taps"])
    shutil.rmtree(tmp_path / "plain.kd/kdcache/seals")
    with pytest.raises(StoreNotFoundError, match="is not sealed; run: kdcache seal"):
        push(str(tmp_path / "plain.kd"), str(tmp_path / "x.kd"), without=["taps"])


def test_merge_takes_whole_blocks_alone(rich: Path, tmp_path: Path) -> None:
    copy = copied(rich, tmp_path / "copy.kd", "taps")
    for inputs, out in (([copy, rich], "joined.kd"), ([rich, rich], "copy.kd")):
        with pytest.raises(MissingBlockError, match=r"copy\.kd is a copy without taps layer1, layer2\.0@1x1 of views"):
            merge_stores([str(path) for path in inputs], str(tmp_path / out))
    assert not (tmp_path / "joined.kd").exists()


def test_the_bytes_of_a_listing_do_not_depend_on_the_copy(rich: Path, tmp_path: Path) -> None:
    copy = copied(rich, tmp_path / "copy.kd", "taps")
    lists = [sealed_files(open_place(path), None, without=["taps"]) for path in (rich, copy)]
    assert lists[0] == lists[1]
    assert {file.key for file in lists[0].files} == all_files(copy).keys()


def test_the_command_line(rich: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def kdcache(*given: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(given))
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    copy, far = str(tmp_path / "copy.kd"), str(tmp_path / "far.kd")
    size = shard_bytes(rich, "taps.0", "taps.1")
    code, out, _ = kdcache("push", str(rich), far, "--without", "tap:layer1", "--without", "tap:layer2.0@1x1", "--json")
    assert (code, json.loads(out)["without"], json.loads(out)["without_bytes"]) == (0, ["layer1", "layer2.0@1x1"], size)
    code, out, _ = kdcache("pull", far, copy, "--without", "taps")
    assert (code, f"({bytes_text(size)})" in out) == (0, True)
    code, out, err = kdcache("pull", far, str(tmp_path / "again.kd"))
    assert (code, "leave them out too, --without taps" in err) == (2, True)
    code, out, _ = kdcache("export", copy, str(tmp_path / "one.zip"), "--without", "taps", "--json")
    assert (code, json.loads(out)["without_bytes"]) == (0, size)
    code, out, _ = kdcache("inspect", copy)
    assert "layer1 2x3 (views 0:2, 2:3 were left out)" in out
    code, out, _ = kdcache("verify", copy)
    assert (code, NOTES[0] in " ".join(out.split()), "verdict: whole" in out) == (0, True, True)
    code, out, _ = kdcache("push", str(rich), far, "--json")
    assert "without" not in json.loads(out)
