"""recode: upwards is refused, other stores are left alone, and what is stopped or killed goes on."""

from pathlib import Path
from typing import Any

import pytest

from kdcache.base.view_span import ViewSpan
from kdcache.errors import (
    DamagedError,
    InterruptedRunError,
    InvalidInputError,
    MismatchError,
    MissingBlockError,
    StoreError,
    StoreNotFoundError,
)
from kdcache.store.store import Store
from kdcache.whole_store.recode import recode_store
from kdcache.whole_store.recode_plan import Narrowing
from kdcache.whole_store.verify import inspect_files
from tests.cli.test_cli import Capture, answer, kdcache, refusal
from tests.kits.merge import killed
from tests.kits.recode import recoded
from tests.kits.stages import stop_after
from tests.kits.stores import Case, all_files, create_store, make_case, write_store, write_views


@pytest.mark.parametrize(
    ("k", "wanted", "said"),
    [
        (5, {"top_k": 6}, r"--top-k 6 was asked of a store that holds the top 5"),
        (5, {"quantisation": "high"}, r"--quantisation high was asked of a store in steps of 1/16"),
        (5, {}, r"names nothing to change .top 5, default quantisation, plain."),
        (5, {"top_k": 5, "packing": "plain"}, r"asks for what the store has"),
        (5, {"top_k": 3, "drop": ("features",)}, r"--drop features was asked of a store that keeps no features"),
        (None, {"packing": "residuals"}, r"all logits, which have no gaps"),
        (None, {"top_k": 31}, r"--top-k 31 was asked of 30 classes"),
    ],
)
def test_what_the_source_cannot_give_is_refused(
    tmp_path: Path, k: int | None, wanted: dict[str, Any], said: str
) -> None:
    write_store(tmp_path / "a.kd", make_case(100, k=k))
    with pytest.raises(InvalidInputError, match=said):
        recode_store(str(tmp_path / "a.kd"), str(tmp_path / "out.kd"), Narrowing(**wanted))
    assert not (tmp_path / "out.kd").exists()


def test_places_that_cannot_be_are_refused(tmp_path: Path) -> None:
    case = make_case(100)
    source = write_store(tmp_path / "a.kd", case)
    narrower = Narrowing(top_k=3)
    for out in ("a.kd", "a.kd/inside", "."):
        with pytest.raises(InvalidInputError, match="lie in one another"):
            recode_store(str(tmp_path / "a.kd"), str(tmp_path / out), narrower)
    with pytest.raises(InvalidInputError, match="is a pin"):
        recode_store(str(tmp_path / "a.kd"), f"{tmp_path}/o.kd@{source.content_id}", narrower)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    with pytest.raises(InvalidInputError, match=r"holds other files .thesis.tex."):
        recode_store(str(tmp_path / "a.kd"), str(tmp_path / "full"), narrower)
    write_views(create_store(tmp_path / "open.kd", case), 0, case.logits)
    with pytest.raises(StoreNotFoundError, match="is not sealed: what is recoded must be whole"):
        recode_store(str(tmp_path / "open.kd"), str(tmp_path / "o.kd"), narrower)


def test_views_are_whole_segments_and_join_later(tmp_path: Path) -> None:
    case = make_case(100, views=3)
    store = create_store(tmp_path / "a.kd", case)
    write_views(store, 0, case.logits[:2])
    write_views(store, 2, case.logits[2:])
    store.seal()
    with pytest.raises(InvalidInputError, match="name whole segments"):
        recoded(tmp_path / "a.kd", tmp_path / "o.kd", ViewSpan(0, 1), top_k=3)
    first, _ = recoded(tmp_path / "a.kd", tmp_path / "o.kd", ViewSpan(2, 3), top_k=3)
    both, found = recoded(tmp_path / "a.kd", tmp_path / "o.kd", top_k=3)
    assert (first.rows, both.rows, both.present, found.every_view) == (100, 300, 2, (0, 1, 2))
    (tmp_path / "a.kd/kdcache/partial.json").write_bytes(
        b'{"left_out":[' + store.seal().segments[1].to_bytes().strip() + b"]}\n"
    )
    with pytest.raises(MissingBlockError, match=r"partial copy without views 2:3; .*pull and recode .*--views 0:2"):
        recoded(tmp_path / "a.kd", tmp_path / "p.kd", top_k=3)
    assert recoded(tmp_path / "a.kd", tmp_path / "p.kd", ViewSpan(0, 2), top_k=3)[0].rows == 200


def test_other_settings_and_another_source_are_refused_where_a_store_lies(tmp_path: Path) -> None:
    case = make_case(200)
    write_store(tmp_path / "a.kd", case)
    write_store(tmp_path / "b.kd", Case(case.identity, case.order, case.labels, case.logits + 1e-1 * case.logits))
    recoded(tmp_path / "a.kd", tmp_path / "o.kd", top_k=3)
    before = all_files(tmp_path / "o.kd")
    with pytest.raises(MismatchError, match=r"encoding.k: the store has 3, this run has 2"):
        recode_store(str(tmp_path / "a.kd"), str(tmp_path / "o.kd"), Narrowing(top_k=2))
    with pytest.raises(MismatchError, match=r"block 0 from elsewhere:\n.*recoded from segment: the output has"):
        recode_store(str(tmp_path / "b.kd"), str(tmp_path / "o.kd"), Narrowing(top_k=3))
    write_store(tmp_path / "direct.kd", make_case(200, k=3))
    with pytest.raises(MismatchError, match=r"has nothing: it was not recoded"):
        recode_store(str(tmp_path / "a.kd"), str(tmp_path / "direct.kd"), Narrowing(top_k=3))
    assert all_files(tmp_path / "o.kd") == before


def test_a_damaged_file_is_not_recoded(tmp_path: Path) -> None:
    """Bytes that decode, but are not those that were committed: a shard of another store in its place."""
    case = make_case(200)
    source = write_store(tmp_path / "a.kd", case)
    write_store(tmp_path / "b.kd", Case(case.identity, case.order, case.labels, case.logits[::-1].copy()))
    key = source.segments[0].layout.arrays["gaps"].key(1)
    (tmp_path / "a.kd" / key).write_bytes((tmp_path / "b.kd" / key).read_bytes())
    with pytest.raises(DamagedError, match=r"gaps/c/0/1/0 has sha256 .*, committed was"):
        recode_store(str(tmp_path / "a.kd"), str(tmp_path / "o.kd"), Narrowing(top_k=3))
    assert sorted(Store.open_for_writing(tmp_path / "o.kd").segments[0].commits()) == [0]


def test_foreign_files_in_the_place_of_a_block_are_told(tmp_path: Path) -> None:
    source = write_store(tmp_path / "a.kd", make_case(200))
    layout_ = source.segments[0].layout
    recode_store(str(tmp_path / "a.kd"), str(tmp_path / "o.kd"), Narrowing(top_k=3), seal=False)
    (tmp_path / "o.kd" / layout_.commit_key(1)).unlink()
    (tmp_path / "o.kd" / layout_.arrays["classes"].key(1)).write_bytes(b"another writer's")
    with pytest.raises(StoreError, match=r"in the place of 1 blocks.*views-00000-00002 block 1"):
        recode_store(str(tmp_path / "a.kd"), str(tmp_path / "o.kd"), Narrowing(top_k=3))


def test_a_stop_leaves_whole_blocks_and_the_same_command_goes_on(tmp_path: Path) -> None:
    write_store(tmp_path / "a.kd", make_case(200))
    wanted = Narrowing(top_k=3)
    stop, progress = stop_after(2)
    with pytest.raises(InterruptedRunError, match="run the same kdcache recode again"):
        recode_store(str(tmp_path / "a.kd"), str(tmp_path / "o.kd"), wanted, stop=stop, progress=progress)
    done = recode_store(str(tmp_path / "a.kd"), str(tmp_path / "o.kd"), wanted)
    assert 0 < done.present < done.blocks
    assert done.content_id == recode_store(str(tmp_path / "a.kd"), str(tmp_path / "p.kd"), wanted).content_id


def test_killed_at_any_step_it_goes_on_to_the_same_store(tmp_path: Path) -> None:
    source = str(write_store(tmp_path / "a.kd", make_case(200)).folder.root)
    whole = recode_store(source, str(tmp_path / "whole.kd"), Narrowing(top_k=3)).content_id
    for at in (20, 60, 95):
        out = tmp_path / f"killed-{at}.kd"
        assert killed(recode_store, source, str(out), Narrowing(top_k=3), at=at) == -9
        assert recode_store(source, str(out), Narrowing(top_k=3)).content_id == whole
        assert inspect_files(str(out)).whole


def test_the_command_line(tmp_path: Path, capsys: Capture) -> None:
    write_store(tmp_path / "a.kd", make_case(200, features=4))
    source = tmp_path / "a.kd"
    assert kdcache("recode", source, tmp_path / "o.kd", "--top-k", "2", "--drop", "features,") == 2
    assert "drop: '' is none of features, head, taps" in capsys.readouterr().err
    assert kdcache("recode", source, tmp_path / "o.kd", "--top-k", "2", "--drop", "features", "--no-seal") == 0
    shown = capsys.readouterr().out
    assert "bytes a row" in shown
    assert "top 5, default quantisation, plain, features" in shown
    record = answer(capsys, "recode", source, tmp_path / "p.kd", "--top-k", "2", "--packing", "residuals")
    assert (record["rows"], record["encoding"]) == (400, "top 2, default quantisation, residuals, features")
    assert "Input should be" in refusal(capsys, "recode", source, tmp_path / "q.kd", "--quantisation", "low")
    assert "--engine dask" in refusal(
        capsys, "recode", source, tmp_path / "q.kd", "--top-k", "2", "--scheduler", "tcp://x:1"
    )
