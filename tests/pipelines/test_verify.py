"""verify: every kind of damage to every kind of file is found, and extract mends what it can redo."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdcache.errors import InterruptedRunError, InvalidInputError, KdcacheError, MismatchError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import Verdict, verify
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from tests.kits import stages
from tests.kits.stages import BLOCKS, NETWORK, ROWS, Stage, stop_after
from tests.kits.stores import all_files
from tests.kits.views import trained_network

stage = stages.stage

DATA: dict[str, Any] = {"data": "digits", "data_set": {"limit": ROWS}}
TEACHER: dict[str, Any] = {"teacher": NETWORK, "teacher_set": {"width": 8}}


def verdict(store: str | Path, **changes: Any) -> Verdict:
    return verify(VerifySettings.model_validate({"store": str(store), **changes}))


def failed(found: Verdict) -> list[str]:
    return [check.name for check in found.checks if not check.passed]


@pytest.fixture(scope="module")
def rich(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two segments and two seals with features and a head: every kind of file that there is."""
    path = tmp_path_factory.mktemp("rich") / "digits.kd"
    extract(stage.asked(path, keep=("features", "head")))
    extract(stage.asked(path, keep=("features", "head"), views="2:3"))
    return path


KINDS = [
    *(f"views-00000-00002/{name}/c/" for name in ("classes", "gaps", "tail", "label", "pixels", "features", "canary")),
    "views-00002-00003/classes/c/",
    "kdcache/views-00000-00002/commits/",
    "kdcache/views-00000-00002/commits-",
    "kdcache/views-00000-00002/segment.json",
    "kdcache/seals/latest",
    "kdcache/seals/LATEST",
    "kdcache/manifest.json",
    "order/c/",
    "order/zarr.json",
    "labels/c/",
    "head/weight/c/",
    "head/bias/c/",
    "head/zarr.json",
    "views-00000-00002/zarr.json",
    "views-00000-00002/tail/zarr.json",
    "zarr.json",
]


def flip(data: bytes) -> bytes:
    middle = len(data) // 3
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def zero(data: bytes) -> bytes:
    return bytes(min(len(data), 4096)) + data[4096:]


HARMS: dict[str, Callable[[bytes], bytes] | None] = {
    "flip": flip,
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "zero": zero,
    "delete": None,
}


def first(store: Path, kind: str) -> Path:
    """The first file of a kind; that an older seal was deleted, nobody can know."""
    prefix = kind.replace("LATEST", (store / "kdcache/seals/latest").read_text()[:32])
    return next(store / name for name in all_files(store) if name.startswith(prefix))


def hurt(path: Path, harm: str) -> None:
    """Damage a file."""
    change = HARMS[harm]
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))


def test_a_whole_store_is_whole(stage: Stage, rich: Path) -> None:
    for store, blocks in ((stage.store, BLOCKS), (rich, 2 * BLOCKS)):
        found = verdict(store)
        assert found.whole
        assert (found.findings, found.repair) == ((), "")
        assert f"{blocks} blocks, 0 wrong" in found.checks[0].detail


@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_to_every_kind_of_file_is_found(rich: Path, tmp_path: Path, kind: str) -> None:
    store = Path(shutil.copytree(rich, tmp_path / "digits.kd"))
    for harm in HARMS:
        path = first(store, kind)
        before = path.read_bytes()
        hurt(path, harm)
        try:
            found = verdict(store)
        except KdcacheError as error:
            said = str(error)
        else:
            assert not found.whole, f"{harm} of {path} was not seen"
            assert found.repair, f"{harm} of {path}: no next step"
            said = "; ".join([*found.findings, found.repair])
        assert str(store) in said or "the same `kdcache extract`" in said, f"{harm} of {path}: {said}"
        path.write_bytes(before)
    assert verdict(store).whole


@pytest.mark.parametrize("harm", sorted(HARMS))
def test_repair_and_extract_make_it_whole_again(stage: Stage, tmp_path: Path, harm: str) -> None:
    store = stage.copy(tmp_path / "digits.kd")
    hurt(first(store, "views-00000-00002/gaps/c/"), harm)
    commit = first(store, "kdcache/views-00000-00002/commits/000/000003")
    if harm == "flip":  # of a digest: other fields say nothing of the shards
        commit.write_bytes(commit.read_bytes().replace(b'"sha256":"', b'"sha256":"0', 1))
    else:
        hurt(commit, harm)
    found = verdict(store)
    assert "--repair" in found.repair
    if harm != "delete":
        assert len(found.findings) >= 2
    assert "blocks were removed; run the same `kdcache extract`" in verdict(store, repair=True).repair
    again = verdict(store)
    assert failed(again) == ["complete"]
    assert "the same `kdcache extract`" in again.repair
    assert extract(stage.asked(store)).blocks_done_before == BLOCKS - 2
    assert verdict(store).whole
    assert all_files(store) == all_files(Path(stage.store))


def test_an_unfinished_store_is_not_whole_and_says_how_to_finish(stage: Stage, tmp_path: Path) -> None:
    stop, progress = stop_after(5)
    with pytest.raises(InterruptedRunError):
        extract(stage.asked(tmp_path / "part.kd"), progress=progress, stop=stop)
    found = verdict(tmp_path / "part.kd")
    assert failed(found) == ["complete"]
    assert found.repair == "the same `kdcache extract` that made the store finishes it"


def test_a_store_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KdcacheError, match="does not exist"):
        verdict(tmp_path / "nowhere.kd")


def test_data_and_teacher_are_asked_again(stage: Stage) -> None:
    found = verdict(stage.store, **DATA, **TEACHER, weights=stage.weights, rows=0)
    assert [check.name for check in found.checks] == [
        "files", "complete", "data set", "contents", "pixels", "teacher weights", "teacher answers",
    ]  # fmt: skip
    assert found.whole
    assert f"{2 * ROWS} views of {ROWS} rows drawn again, 0 differ" in found.checks[4].detail


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"data_set": {"limit": 299}}, "dataset.rows"), ({"data_set": {"split": "test", "limit": 300}}, "dataset.labels")],
)
def test_another_data_set_is_a_failed_check(stage: Stage, changes: dict[str, Any], field: str) -> None:
    found = verdict(stage.store, **{**DATA, **changes})
    assert failed(found) == ["data set", "contents", "pixels"]
    assert "name the data set that the store was made from" in found.repair
    detail = next(check.detail for check in found.checks if check.name == "data set")
    assert f"{field}: the store has" in detail
    assert not re.search(r"[0-9a-f]{16}", detail)  # digests by their first digits


def test_a_store_of_the_first_samples_says_so_of_all_samples(stage: Stage) -> None:
    found = verdict(stage.store, data="digits")
    detail = next(check.detail for check in found.checks if check.name == "data set")
    assert detail.startswith(f"dataset.rows: the store has {ROWS}, the data set has ")
    assert f"Then give --data-set limit={ROWS} here too" in "\n".join(found.findings)


def test_another_teacher_is_a_failed_check(stage: Stage, tmp_path: Path) -> None:
    network = trained_network()
    with torch.no_grad():
        network[-1].bias[0] += 1e-3
    save_weights(tmp_path / "other.safetensors", network)
    found = verdict(stage.store, **DATA, **TEACHER, weights=str(tmp_path / "other.safetensors"))
    assert failed(found) == ["teacher weights", "teacher answers"]
    assert "name the store's own teacher" in found.repair


@pytest.mark.parametrize("changes", [{"top_k": 10}, {"mix": "mixup"}, {"quantisation": "high", "top_k": 1}], ids=str)
def test_the_teacher_answers_alike_in_every_encoding(stage: Stage, tmp_path: Path, changes: dict[str, Any]) -> None:
    extract(stage.asked(tmp_path / "digits.kd", **changes))
    found = verdict(tmp_path / "digits.kd", **DATA, **TEACHER, weights=stage.weights, rows=100)
    assert found.whole, found.checks


def test_answers_of_another_teacher_under_the_same_weights_fail(stage: Stage, tmp_path: Path) -> None:
    """The weights are equal, the network around them is not."""
    (tmp_path / "odd.py").write_text(
        "from torch import nn\nfrom kdcache.networks import convnet\n\n"
        "def net(num_classes=10):\n    network = convnet(width=8)\n"
        "    network.register_forward_pre_hook(lambda module, inputs: inputs[0].flip(-1))\n    return network\n"
    )
    found = verdict(stage.store, **DATA, teacher=f"{tmp_path}/odd.py:net", weights=stage.weights)
    assert failed(found) == ["teacher answers"]
    assert "name the store's own network" in found.repair


OWN = """
import os
import torch

def make():
    return shift

def shift(image):
    return torch.roll(image, int(os.environ.get("KDCACHE_TEST_ROLL", "0")), -1)
"""


def test_pixels_that_do_not_replay_are_a_failed_check(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    own: dict[str, Any] = {"transform": f"{tmp_path}/own.py:make", "transform_set": {}}
    extract(stage.asked(tmp_path / "own.kd", **own))
    assert verdict(tmp_path / "own.kd", **DATA, **own).whole
    with pytest.raises(InvalidInputError, match="not a preset; name it again with --transform"):
        verdict(tmp_path / "own.kd", **DATA)
    with pytest.raises(MismatchError, match=r"transform\.name: the store has 'own.py:make', this run has 'light'"):
        verdict(tmp_path / "own.kd", **DATA, transform="light")
    monkeypatch.setenv("KDCACHE_TEST_ROLL", "1")
    found = verdict(tmp_path / "own.kd", **DATA, **own)
    assert failed(found) == ["pixels"]
    assert "the data set's own files and the package versions" in found.repair
    assert "graded another picture" in next(check.detail for check in found.checks if check.name == "pixels")


def test_weights_without_a_teacher_and_a_teacher_without_data_are_refused(stage: Stage) -> None:
    with pytest.raises(InvalidInputError, match="weights were given without --teacher"):
        verdict(stage.store, **DATA, weights=stage.weights)
    for changes in (TEACHER, {"transform": "light"}, {"data_set": {"limit": 3}}):
        with pytest.raises(InvalidInputError, match="were given without --data"):
            verdict(stage.store, **changes)


def test_a_transform_other_than_the_store_s_is_refused(stage: Stage) -> None:
    with pytest.raises(MismatchError, match=r"transform\.name: the store has 'light', this run has 'center'"):
        verdict(stage.store, **DATA, transform="center", transform_set={"size": 8})


def test_what_extract_redoes_after_repair_reads_as_before(stage: Stage, tmp_path: Path) -> None:
    store = stage.copy(tmp_path / "digits.kd")
    hurt(first(store, "views-00000-00002/classes/c/"), "delete")
    with pytest.raises(KdcacheError, match=r"kdcache verify .* --repair"):
        Store.open(store).read(0, np.arange(ROWS))
    verdict(store, repair=True)
    extract(stage.asked(store))
    read, expected = (Store.open(each).load(0, np.arange(ROWS)).arrays for each in (store, stage.store))
    assert all(np.array_equal(read[name], expected[name]) for name in expected)
