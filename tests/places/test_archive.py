"""A store in one zip file: equal bytes for equal stores, whole or absent, and read as the folder is read."""

import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
import zarr
from zarr.storage import ZipStore

from kdcache.cli.app import main
from kdcache.errors import DamagedError, InvalidInputError, KdcacheError, StoreError, StoreNotFoundError
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.places.archive import entry_pieces
from kdcache.places.opening import open_folder, open_place
from kdcache.places.parts import in_memory
from kdcache.places.zip_format import check_header, read_entries
from kdcache.sharing.export import WRITING, export_store
from kdcache.sharing.sealed_files import sealed_files
from kdcache.store.inspection import describe_rows, describe_store
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits import stages
from tests.kits.damage import ANSWERED, FIRST, all_reads, rich_store
from tests.kits.forks import forks
from tests.kits.stages import Stage, metrics, student, weights_of
from tests.kits.stores import all_files, create_store, make_case, write_views
from tests.kits.web import Site, serving
from tests.kits.zips import export_until, written

stage = stages.stage
SHARD = f"{FIRST}/classes/c/0/1/0"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_store(tmp_path_factory.mktemp("zip") / "rich.kd")


@pytest.fixture(scope="module")
def packed(local: Path) -> Path:
    export_store(str(local), str(local.parent / "rich.zip"))
    return local.parent / "rich.zip"


def test_everything_that_is_read_equals_the_folder(packed: Path, local: Path) -> None:
    assert all_reads(packed) == all_reads(local)
    there, here = Store.open(packed), Store.open(local)
    assert (there.content_id, there.every_view, there.card) == (here.content_id, here.every_view, here.card)
    described, expected = describe_store(there), describe_store(here)
    assert (described.pop("store"), expected.pop("store")) == (str(packed), str(local))
    assert described == expected
    assert describe_rows(there, 5, 1) == describe_rows(here, 5, 1)
    found, wanted = inspect_files(str(packed)), inspect_files(str(local))
    assert found.whole
    assert (found.blocks, found.files, found.bytes) == (wanted.blocks, wanted.files, wanted.bytes)


def test_it_holds_what_the_seal_lists_and_unpacks_to_the_store(packed: Path, local: Path, tmp_path: Path) -> None:
    """The other seal and its commits stay behind; everything else is the folder's, byte for byte."""
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "there.kd")
        assert archive.namelist() == sorted(archive.namelist())
    there, here = all_files(tmp_path / "there.kd"), all_files(local)
    assert there.items() <= here.items()
    assert {key.split("/")[1] for key in here.keys() - there.keys()} == {"seals"}
    assert [each.key for each in sealed_files(open_place(packed), None).files] == [
        each.key for each in sealed_files(open_place(local), None).files
    ]
    assert inspect_files(str(tmp_path / "there.kd")).whole
    done = subprocess.run(["unzip", "-tqq", str(packed)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.filterwarnings("ignore:Object at kdcache is not recognized:UserWarning")
def test_zarr_and_tensorstore_read_it(packed: Path, local: Path) -> None:
    group = zarr.open_group(ZipStore(packed), mode="r")
    store = Store.open(local)
    assert {FIRST, "head"} <= set(group.group_keys())
    assert np.array_equal(group["order"][:], store.order)
    for name in ("classes", "gaps", "pixels", "features"):
        expected = store.load(1, ANSWERED, features=True).arrays[name]
        assert np.array_equal(group[f"{FIRST}/{name}"][1][ANSWERED], expected)
        kvstore = {"driver": "zip", "base": {"driver": "file", "path": str(packed)}, "path": f"{FIRST}/{name}/"}
        array = ts.open({"driver": "zarr3", "kvstore": kvstore}, open=True).result()
        assert np.array_equal(array[1].read().result()[ANSWERED], expected)


def test_a_pin_chooses_the_seal_and_opens_it(local: Path, tmp_path: Path) -> None:
    latest = Store.open(local).content_id
    (older,) = [each.stem for each in (local / "kdcache/seals").glob("*.json") if not latest.startswith(each.stem)]
    done = export_store(f"{local}@{older}", str(tmp_path / "older.zip"))
    assert done.content_id.startswith(older)
    for name in ("older.zip", f"older.zip@{older}", f"older.zip@{older[:6]}"):
        assert Store.open(tmp_path / name).every_view == (0, 1)
    with pytest.raises(StoreNotFoundError, match=rf"has no seal {latest}; it has {older}"):
        Store.open(f"{tmp_path}/older.zip@{latest}")


def test_equal_stores_make_equal_files_from_anywhere(packed: Path, local: Path, tmp_path: Path) -> None:
    """A copy with other times and modes, the archive itself, a web server that shows either, and what it unpacks to."""
    shutil.copytree(local, tmp_path / "copy.kd")
    for path in (tmp_path / "copy.kd").rglob("*"):
        os.utime(path, (time.time() - 10**6,) * 2)
        path.chmod(0o700)
    (tmp_path / "copy.kd/notes.txt").write_text("unknown files are no part of it")
    with serving(local.parent) as site:
        sources = [tmp_path / "copy.kd", packed, f"{site.url}/rich.kd", f"{site.url}/rich.zip"]
        for number, source in enumerate(sources):
            done = export_store(str(source), str(tmp_path / f"{number}.zip"))
            assert (tmp_path / f"{number}.zip").read_bytes() == packed.read_bytes(), source
            assert done.bytes == packed.stat().st_size


def test_a_file_that_is_there_is_kept(packed: Path, local: Path, tmp_path: Path) -> None:
    target = Path(shutil.copy(packed, tmp_path / "rich.zip"))
    before = target.stat()
    export_store(str(local), str(target))
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    target.write_bytes(b"somebody's own")
    with pytest.raises(StoreError, match=r"rich.zip is there already, with other bytes.*; remove it, or choose"):
        export_store(str(local), str(target))
    assert target.read_bytes() == b"somebody's own"
    assert os.listdir(tmp_path) == ["rich.zip"]


def test_what_cannot_be_exported_is_said_and_leaves_nothing(local: Path, tmp_path: Path) -> None:
    open_store = create_store(tmp_path / "open.kd", make_case(70))
    write_views(open_store, 0, make_case(70).logits)
    for source, target, message in (
        (tmp_path / "open.kd", "a.zip", "open.kd is not sealed; run: kdcache seal"),
        (local, "a.tar", "a.tar was given to export to; name a file of this machine that ends in .zip"),
        (local, "https://host/a.zip", "https://host/a.zip was given to export to"),
        (tmp_path / "gone.kd", "a.zip", "gone.kd does not exist"),
    ):
        with pytest.raises(KdcacheError, match=message):
            export_store(str(source), target if ":" in target else str(tmp_path / target))
    assert os.listdir(tmp_path) == ["open.kd"]


@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_damaged_file_is_found_while_it_is_written(local: Path, tmp_path: Path, harm: str) -> None:
    store = Path(shutil.copytree(local, tmp_path / "copy.kd"))
    data = (store / SHARD).read_bytes()
    (store / SHARD).write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:] if harm == "flip" else data[:-1])
    if harm == "gone":
        (store / SHARD).unlink()
    with pytest.raises(DamagedError, match=rf"{SHARD} (has sha256|has \d+ bytes|is missing)"):
        export_store(str(store), str(tmp_path / "copy.zip"))
    assert os.listdir(tmp_path) == ["copy.kd"]


def test_a_killed_export_leaves_no_half_file(local: Path, tmp_path: Path) -> None:
    """Killed at each quarter of the way, the last one before its name is given; the same command then ends."""
    for part in range(1, 5):
        process = forks.Process(target=export_until, args=(str(local), str(tmp_path / "rich.zip"), part))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (tmp_path / "rich.zip").exists()
    assert len(os.listdir(tmp_path)) == 4
    seen: list[tuple[str, int, int]] = []
    export_store(str(local), str(tmp_path / "rich.zip"), progress=lambda *given: seen.append(given))
    assert all_reads(tmp_path / "rich.zip") == all_reads(local)
    assert {what for what, _, _ in seen} == {WRITING}
    assert seen[-1][1] == seen[-1][2]
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_nothing_is_written_to_an_archive(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = packed.read_bytes()
    with pytest.raises(InvalidInputError, match=r"rich.zip is read only; work on a folder: kdcache pull .*rich.zip"):
        Store.open_for_writing(packed)
    place = open_place(packed)
    for write in (place.put_new, place.put_same, place.replace):
        with pytest.raises(InvalidInputError, match="read only"):
            write("a", b"b")
    with pytest.raises(InvalidInputError, match="read only"):
        place.delete("zarr.json")
    with pytest.raises(InvalidInputError, match="read only"):
        open_folder(packed)
    for given in (["seal", str(packed)], ["verify", str(packed), "--repair"]):
        with pytest.raises(SystemExit) as stopped:
            main(given)
        assert stopped.value.code == 2
        assert "read only" in capsys.readouterr().err
    assert packed.read_bytes() == before


def test_verify_finds_in_the_archive_what_it_finds_in_the_folder(packed: Path, tmp_path: Path) -> None:
    """A flipped byte of any entry is found, by the zip's own crc32 where no seal covers the file (the card)."""
    data = packed.read_bytes()
    for key in (SHARD, f"{FIRST}/gaps/zarr.json", "order/c/0", "kdcache/card.json", "kdcache/manifest.json"):
        with zipfile.ZipFile(packed) as archive:
            found = archive.getinfo(key)
        at = found.header_offset + 30 + len(key) + found.file_size // 2
        (tmp_path / "bad.zip").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        if key == "kdcache/manifest.json":
            with pytest.raises(DamagedError, match=f"bad.zip/{key} has crc32"):
                verify(VerifySettings(store=str(tmp_path / "bad.zip")))
        else:
            verdict = verify(VerifySettings(store=str(tmp_path / "bad.zip")))
            assert not verdict.whole
            assert any(key in finding for finding in verdict.findings)
            assert verdict.repair == "restore the named files from another copy of the store"


def test_a_web_server_shows_an_archive_too(packed: Path, local: Path, site: Site) -> None:
    """Only parts of the one file are asked for; a pin holds; nothing of it is fetched whole."""
    content_id = Store.open(local).content_id
    url = f"{site.url}/rich.zip@{content_id}"
    assert all_reads(url) == all_reads(local)
    assert inspect_files(url).whole
    assert {key for key, _ in site.asked} == {"rich.zip"}
    assert all(span for _, span in site.asked)
    before = site.sent
    store = Store.open(url)
    store.read(0, np.arange(10))
    assert site.sent - before < packed.stat().st_size
    with pytest.raises(StoreNotFoundError, match=r"/gone.zip is not there; check the address"):
        Store.open(f"{site.url}/gone.zip")
    site.spoiling.spoil("no ranges", "rich.zip")
    with pytest.raises(StoreError, match="use a server that has range requests"):
        Store.open(url)


@pytest.fixture
def site(local: Path) -> Site:
    with serving(local.parent) as site:
        yield site


def test_a_student_learns_from_an_archive_what_it_learns_from_the_folder(stage: Stage, tmp_path: Path) -> None:
    limits = {"epochs": 2, "val_set": {"split": "test", "limit": 100}}
    done = export_store(stage.store, str(tmp_path / "store.zip"))
    train(student(tmp_path / "archive", store=(f"{tmp_path}/store.zip@{done.content_id}",), **limits))
    train(student(tmp_path / "folder", store=(stage.store,), **limits))
    assert weights_of(tmp_path / "archive") == weights_of(tmp_path / "folder")
    assert metrics(tmp_path / "archive") == metrics(tmp_path / "folder")


def test_the_commands_say_the_same_of_both(packed: Path, local: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(local), str(packed), "--json"])
    assert stopped.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["pin"] == f"{packed}@{said['content_id'][:32]}"
    assert (said["bytes"], said["files"]) == (
        packed.stat().st_size,
        len(read_entries(in_memory(packed.read_bytes()), "x")),
    )
    seen = []
    for store in (local, packed, said["pin"]):
        with pytest.raises(SystemExit) as stopped:
            main(["inspect", str(store), "--rows", "3", "--json"])
        assert stopped.value.code == 0
        seen.append({**json.loads(capsys.readouterr().out), "store": ""})
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("count", [0, 1, 65_535])
def test_archives_of_many_files(count: int) -> None:
    """From 65,535 entries on a zip needs its 64-bit records; the standard library agrees on every name."""
    names = [f"{number:06d}" for number in range(count)]
    file = written(dict.fromkeys(names, b""))
    with zipfile.ZipFile(BytesIO(file.part(0, file.size))) as archive:
        assert archive.namelist() == names
    assert list(read_entries(file, "x.zip")) == names


@pytest.mark.parametrize("full", [40, 400, 700])
def test_large_archives(full: int) -> None:
    """With a limit of a few bytes in the place of 4 GiB, entries and offsets go where those of large files go."""
    entries = {f"name/{number}": bytes([number]) * 20 * number for number in range(9)}
    file = written(entries, full)
    with zipfile.ZipFile(BytesIO(file.part(0, file.size))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == entries
        assert any(info.extra for info in archive.infolist())
    found = read_entries(file, "x.zip")
    for entry in found.values():
        check_header(file, entry, "x.zip")
    assert {name: b"".join(entry_pieces(file, entry, "")) for name, entry in found.items()} == entries
