"""Clean opens of pictures and store, twenty-four ways, each through every row of both views: nothing is refused."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.views.sources import open_data
from tests.kits import pictures
from tests.kits.batches import batches_left
from tests.kits.pictures import ROWS, Gallery
from tests.kits.stages import start

gallery = pictures.gallery

Changes = dict[str, Any]


def relative(gallery: Gallery, folder: Path) -> Changes:
    os.chdir(gallery.folder)
    return {"data": "folder:data/train", "store": ("pictures.kd",)}


def roundabout(gallery: Gallery, folder: Path) -> Changes:
    return {"data": f"folder:{gallery.pictures}/../../data/./train/"}


def moved_data(gallery: Gallery, folder: Path) -> Changes:
    return {"data": f"folder:{shutil.copytree(gallery.pictures, folder / 'elsewhere', copy_function=shutil.copyfile)}"}


def linked_data(gallery: Gallery, folder: Path) -> Changes:
    (folder / "link").symlink_to(gallery.pictures)
    return {"data": f"folder:{folder / 'link'}"}


def linked_files(gallery: Gallery, folder: Path) -> Changes:
    for path in gallery.pictures.glob("*/*"):
        link = folder / "links" / path.relative_to(gallery.pictures)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return {"data": f"folder:{folder / 'links'}"}


def stray_files(gallery: Gallery, folder: Path) -> Changes:
    root = shutil.copytree(gallery.pictures, folder / "data")
    for name in ("README.txt", "cat/.DS_Store", "cat/Thumbs.db", "eye/labels.csv"):
        (root / name).write_text("no picture")
    return {"data": f"folder:{root}"}


def read_only_data(gallery: Gallery, folder: Path) -> Changes:
    root = shutil.copytree(gallery.pictures, folder / "data")
    for path in (*root.rglob("*"), root):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return {"data": f"folder:{root}"}


def moved_store(gallery: Gallery, folder: Path) -> Changes:
    return {"store": (str(shutil.copytree(gallery.store, folder / "my teacher@home.kd")),)}


def linked_store(gallery: Gallery, folder: Path) -> Changes:
    (folder / "link.kd").symlink_to(gallery.store)
    return {"store": (str(folder / "link.kd"),)}


def pin(gallery: Gallery) -> str:
    content_id = Store.open(gallery.store).content_id
    assert content_id is not None
    return content_id


def pinned_in_capitals(gallery: Gallery, folder: Path) -> Changes:
    return {"store": (f"{gallery.store}@{pin(gallery)[:32].upper()}",)}


def named_again(gallery: Gallery, folder: Path) -> Changes:
    return gallery.asked("").model_dump(include={"transform", "transform_set"})


def unsealed(gallery: Gallery, folder: Path) -> Changes:
    extract(gallery.asked(folder / "a.kd", seal=False))
    return {"store": (str(folder / "a.kd"),)}


def more_views(gallery: Gallery, folder: Path) -> Changes:
    store = shutil.copytree(gallery.store, folder / "a.kd")
    extract(gallery.asked(store, views="2:3"))
    return {"store": (str(store),), "epochs": 3}


def other_generators(gallery: Gallery, folder: Path) -> Changes:
    torch.manual_seed(7)
    np.random.seed(7)
    torch.set_num_threads(2)
    return {}


CLEAN: dict[str, Callable[[Gallery, Path], Changes]] = {
    "as it was": lambda gallery, folder: {},
    "small batches": lambda gallery, folder: {"batch_size": 7},
    "one batch": lambda gallery, folder: {"batch_size": ROWS},
    "one worker": lambda gallery, folder: {"workers": 1},
    "two workers": lambda gallery, folder: {"workers": 2},
    "another cwd, relative paths": relative,
    "a roundabout path": roundabout,
    "data moved": moved_data,
    "data folder linked": linked_data,
    "files linked": linked_files,
    "stray files": stray_files,
    "read-only data": read_only_data,
    "store moved": moved_store,
    "store linked": linked_store,
    "pinned": lambda gallery, folder: {"store": (f"{gallery.store}@{pin(gallery)}",)},
    "pinned by 32 digits, in capitals": pinned_in_capitals,
    "unsealed": unsealed,
    "views added": more_views,
    "one view": lambda gallery, folder: {"views": "1:2"},
    "little memory": lambda gallery, folder: {"memory_gb": 1e-6},
    "another training seed": lambda gallery, folder: {"seed": 11},
    "other generators and threads": other_generators,
    "transform named again": named_again,
    "drift accepted": lambda gallery, folder: {"accept_drift": True},
}


@pytest.mark.parametrize("way", CLEAN)
def test_a_clean_open_is_no_alarm(gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.chdir(tmp_path)  # and back afterwards
    threads = torch.get_num_threads()
    settings = gallery.student(tmp_path / "run", **{"epochs": 2, **CLEAN[way](gallery, tmp_path)})
    try:
        steps = train(settings).steps
    finally:
        torch.set_num_threads(threads)
    assert steps >= settings.epochs * (ROWS // settings.batch_size)


def test_a_subset_of_positions_is_no_alarm(gallery: Gallery) -> None:
    data = open_data(f"folder:{gallery.pictures}", {})
    chosen = np.arange(3, ROWS, 7)
    loader = Loader(data, [Store.open(gallery.store)], batch_size=5, epochs=2, positions=chosen)
    batches = list(batches_left(loader))
    assert sum(len(batch.positions) for batch in batches) == 2 * len(chosen)


def test_another_process_is_no_alarm(gallery: Gallery, tmp_path: Path) -> None:
    settings = gallery.student(tmp_path / "run", epochs=2)
    process = start(settings, {})
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "run/weights").is_dir()


def test_verify_raises_no_alarm_over_any_row(gallery: Gallery) -> None:
    found = verify(VerifySettings(store=gallery.store, data=f"folder:{gallery.pictures}", rows=0))
    assert found.whole
    assert f"{2 * ROWS} views of {ROWS} rows drawn again, 0 differ" in found.checks[4].detail
