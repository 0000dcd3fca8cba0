"""The cache of views serves the pixels that would be drawn, or nothing, whoever wrote, was killed or changed what."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdcache.base.cache_options import CacheOptions
from kdcache.base.view_span import ViewSpan
from kdcache.views import cache_keys
from kdcache.views.cache_keys import open_caches
from kdcache.views.draw import ViewDataset
from kdcache.views.fingerprint import header
from kdcache.views.transforms import build_transform
from kdcache.views.view_cache import ALIGNED, HEAD, ViewCache, rows_a_file
from kdcache.views.view_stack import Drawn, ViewRequest
from kdcache.views.workers import draw_requests
from tests.kits.forks import forks
from tests.kits.views import Mix, picture_data, plan_of

ROWS, VIEWS = 70, ViewSpan(0, 2)
KINDS: Any = ("values",)
DATA = picture_data(ROWS)


class Unread:
    """Samples that nobody may ask for."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        raise AssertionError(f"sample {index} was read")


def dataset(folder: Path | str, mix: Mix = "none", *, samples: Any = DATA.samples, **options: Any) -> ViewDataset:
    """Views of the pictures with a cache in `folder`; without one where it is empty."""
    plan = plan_of("light", mix)
    caches = open_caches(CacheOptions(views=str(folder), **options), DATA, plan, KINDS, checked=True)
    return ViewDataset(samples, np.arange(ROWS), plan, build_transform("light", {})[0], KINDS, caches=caches)


def request(view: int = 0, positions: Any = range(ROWS)) -> ViewRequest:
    return ViewRequest(ViewSpan.of(view), np.array(positions))


def require_equal(one: Drawn, other: Drawn) -> None:
    assert torch.equal(one.images, other.images)
    assert one.pixels.tolist() == other.pixels.tolist()
    assert {kind: values.tolist() for kind, values in one.contents.items()} == {
        kind: values.tolist() for kind, values in other.contents.items()
    }


def key_folder(folder: Path) -> Path:
    (path,) = (folder / "views").iterdir()
    return path


def view_files(folder: Path) -> list[Path]:
    return sorted(path for path in key_folder(folder).iterdir() if path.name != "key.json")


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A cache that holds both views of all rows."""
    dataset(tmp_path / "cache")[ViewRequest(VIEWS, np.arange(ROWS))]
    return tmp_path / "cache"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
def test_served_views_are_those_that_are_drawn(filled: Path, mix: Mix, workers: int) -> None:
    """Mixed plans share the cache of the unmixed one; no sample is decoded."""
    requests = [request(0, [3, 1, 69]), request(1)]
    served = list(draw_requests(dataset(filled, mix, samples=Unread()), requests, workers))
    for one, other in zip(served, (dataset("", mix)[each] for each in requests), strict=True):
        require_equal(one, other)
        assert (one.served, other.served) == (len(one.request.positions), 0)


def test_rows_that_are_missing_are_drawn_and_kept(tmp_path: Path) -> None:
    caching = dataset(tmp_path)
    assert caching[request(0, range(30))].served == 0
    mixed = caching[request(0, range(20, 40))]
    require_equal(mixed, dataset("")[request(0, range(20, 40))])
    assert mixed.served == 10
    assert dataset(tmp_path)[request(0, range(40))].served == 40
    cache = caching.caches.views
    assert cache is not None
    assert [cache.rows_kept(view) for view in (0, 1)] == [40, 0]


def test_a_cache_that_is_only_filled_serves_nothing(filled: Path) -> None:
    assert dataset(filled).afresh()[request()].served == 0


@pytest.mark.parametrize("place", ["mark", "contents", "pixel", "magic", "rows", "width"])
def test_bytes_that_changed_are_not_served(filled: Path, place: str) -> None:
    """Whatever bit flips, the row is drawn; where the file says something else of itself, all of its rows are."""
    row, row_bytes = 5, DATA.samples[0][0].nbytes
    offsets = {
        "mark": ALIGNED + 8 * row,
        "contents": ALIGNED + 8 * ROWS + 8 * row,
        "pixel": view_files(filled)[0].stat().st_size - ROWS * row_bytes + row * row_bytes + 7,
        "magic": 0,
        "rows": 8,
        "width": HEAD.size - 4,
    }
    with view_files(filled)[0].open("r+b") as file:
        file.seek(offsets[place])
        byte = file.read(1)[0]
        file.seek(offsets[place])
        file.write(bytes([byte ^ 1]))
    drawn = dataset(filled)[request()]
    require_equal(drawn, dataset("")[request()])
    assert drawn.served == (ROWS - 1 if place in ("mark", "contents", "pixel") else 0)
    assert dataset(filled, samples=Unread())[request()].served == ROWS  # it was kept again


def test_a_row_counts_by_view_sample_and_shape(filled: Path) -> None:
    """A record and its pixels that are copied to another place of the same key are no row there."""
    first, second = view_files(filled)
    cache = dataset(filled).caches.views
    assert cache is not None
    with first.open("rb") as file:
        body = file.read()
    with second.open("r+b") as file:
        file.write(body)

    def put(offset: int, row: int, index: int, view: Any) -> int:
        digest = header(torch.from_numpy(view.copy()))
        digest.update(view.tobytes())
        return digest.intdigest()

    assert cache.serve([0], range(ROWS), put)[0] == []
    missing, _ = cache.serve([1], range(ROWS), put)
    assert missing == list(range(ROWS))


def test_keys_differ_by_all_that_pixels_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, options = plan_of("light"), CacheOptions(views=str(tmp_path))

    def name(data: Any = DATA, plan: Any = plan, kinds: Any = KINDS, *, checked: bool = True) -> str:
        cache = open_caches(options, data, plan, kinds, checked=checked).views
        assert isinstance(cache, ViewCache)
        return cache.folder.name

    first = name()
    assert name() == first == name(plan=plan_of("light", "mixup"))
    others = {
        name(data=picture_data(ROWS + 1)),
        name(plan=plan_of("light", seed=6)),
        name(plan=plan_of("light", padding=3)),
        name(plan=plan_of("none")),
        name(kinds=("bytes",)),
    }
    here = cache_keys.provenance
    for change in ({"cpu_capability": "other"}, {"versions": {"torch": "1"}}, {"decoder": "other"}):
        monkeypatch.setattr(
            cache_keys, "provenance", lambda *a, change=change, **k: here(*a, **k).model_copy(update=change)
        )
        others.add(name())
    assert len(others - {first}) == 8


def _fill_for_ever(folder: str) -> None:
    caching = dataset(folder).afresh()
    while True:
        for view in VIEWS:
            caching[request(view)]


def test_writers_that_are_killed_and_writers_at_once_leave_nothing_half(tmp_path: Path) -> None:
    """Four processes write the same rows again and again; two are killed wherever they are, meanwhile others read."""
    writers = [forks.Process(target=_fill_for_ever, args=(str(tmp_path),), daemon=True) for _ in range(4)]
    for writer in writers:
        writer.start()
    expected = [dataset("")[request(view)] for view in VIEWS]
    served = 0
    while served < 10 * ROWS:
        for view in VIEWS:
            drawn = dataset(tmp_path)[request(view)]
            require_equal(drawn, expected[view])
            served += drawn.served
    for writer in writers:
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    for view in VIEWS:
        require_equal(dataset(tmp_path)[request(view)], expected[view])
        assert dataset(tmp_path, samples=Unread())[request(view)].served == ROWS
    assert len(view_files(tmp_path)) == len(VIEWS)


def test_floats_are_not_kept(tmp_path: Path) -> None:
    plan = plan_of("none")
    caches = open_caches(CacheOptions(views=str(tmp_path)), DATA, plan, KINDS, checked=True)
    caching = ViewDataset(DATA.samples, np.arange(ROWS), plan, lambda image: image.float() / 255, KINDS, caches=caches)
    assert [caching[request()].served for _ in range(2)] == [0, 0]
    assert view_files(tmp_path) == []


@pytest.mark.parametrize(("samples", "rows"), [(1, 1024), (256 * 1024, 1024), (256 * 1024 + 1, 2048), (10**7, 65536)])
def test_a_view_has_256_files_at_most(samples: int, rows: int) -> None:
    assert rows_a_file(samples) == rows
    assert -(-samples // rows) <= 256


def test_views_of_another_size_under_the_same_key_are_replaced(tmp_path: Path) -> None:
    """Pictures that no probe looks at were larger once; a request then has rows of both sizes."""
    larger = [(torch.zeros(3, 20, 15, dtype=torch.uint8), 0) for _ in range(ROWS)]
    dataset(tmp_path, samples=larger)[request(0, range(30))]
    drawn = dataset(tmp_path)[request()]
    require_equal(drawn, dataset("")[request()])
    assert drawn.served == 0
    assert dataset(tmp_path, samples=Unread())[request()].served == ROWS
