"""The cache of decoded samples gives the images that the decoder gave, or nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from kdcache.base.cache_options import CacheOptions
from kdcache.views.cache_keys import open_caches
from kdcache.views.decoded_cache import HEAD, DecodedCache
from kdcache.views.draw import ViewDataset
from kdcache.views.transforms import build_transform
from tests.kits.views import Kind, picture_data, plan_of
from tests.views.test_view_cache import Unread, request, require_equal

ROWS = 70
KINDS: Any = ("values",)


def dataset(folder: Path | str, kind: Kind, *, samples: Any = None, **options: Any) -> ViewDataset:
    data, plan = picture_data(ROWS, kind), plan_of("light")
    caches = open_caches(CacheOptions(decoded=str(folder), **options), data, plan, KINDS, checked=True)
    transform = build_transform("light", {})[0]
    return ViewDataset(samples or data.samples, np.arange(ROWS), plan, transform, KINDS, caches=caches)


def pictures(folder: Path) -> list[Path]:
    (key,) = (folder / "decoded").iterdir()
    return sorted(path for path in key.iterdir() if path.name != "key.json")


@pytest.mark.parametrize("kind", ["pil", "tensor"])
def test_views_of_cached_pictures_are_those_of_decoded_ones(tmp_path: Path, kind: Kind) -> None:
    dataset(tmp_path, kind)[request(0)]
    for view in (0, 1):  # another view of the same pictures
        require_equal(dataset(tmp_path, kind, samples=Unread())[request(view)], dataset("", kind)[request(view)])
    assert len(pictures(tmp_path)) == ROWS


@pytest.mark.parametrize("offset", [0, 8, 16, 20, HEAD.size - 1, HEAD.size + 5])
def test_bytes_that_changed_are_not_served(tmp_path: Path, offset: int) -> None:
    dataset(tmp_path, "pil")[request(0)]
    body = bytearray(pictures(tmp_path)[3].read_bytes())
    body[offset] ^= 1
    pictures(tmp_path)[3].write_bytes(body)
    cache = dataset(tmp_path, "pil").caches.decoded
    assert isinstance(cache, DecodedCache)
    assert [cache.get(index) is None for index in (2, 3)] == [False, True]
    require_equal(dataset(tmp_path, "pil")[request(0)], dataset("", "pil")[request(0)])


def test_a_file_that_is_cut_off_is_not_served(tmp_path: Path) -> None:
    dataset(tmp_path, "pil")[request(0)]
    for index, size in enumerate((0, 10, HEAD.size, HEAD.size + 9)):
        path = pictures(tmp_path)[index]
        path.write_bytes(path.read_bytes()[:size])
    require_equal(dataset(tmp_path, "pil")[request(0)], dataset("", "pil")[request(0)])


@pytest.mark.parametrize(
    ("image", "is_kept"),
    [
        (PIL.Image.new("RGB", (4, 3), (1, 2, 3)), True),
        (PIL.Image.new("L", (4, 3), 7), True),
        (PIL.Image.new("P", (4, 3)), False),
        (PIL.Image.new("I;16", (4, 3)), False),
        (torch.full((3, 4, 5), 9, dtype=torch.uint8), True),
        (torch.zeros(3, 4, 5), False),
        (torch.zeros(4, 5, dtype=torch.uint8), False),
        (np.zeros((4, 5, 3), np.uint8), False),
    ],
)
def test_kept_images_come_back_equal_and_in_memory_of_their_own(tmp_path: Path, image: Any, is_kept: bool) -> None:
    cache = dataset(tmp_path, "pil").caches.decoded
    assert isinstance(cache, DecodedCache)
    assert cache.keep(0, image, (5, 6)) is is_kept
    stored = cache.get(0)
    assert (stored is not None) is is_kept
    if stored is not None:
        served, fingerprints = stored
        assert fingerprints == (5, 6)
        assert type(served) is type(image) or served.mode == image.mode
        assert np.array_equal(np.asarray(served), np.asarray(image))
        if isinstance(served, torch.Tensor):
            served += 1
            other = cache.get(0)
            assert other is not None
            assert torch.equal(other[0], image)


def test_without_room_pictures_are_decoded(tmp_path: Path) -> None:
    limit = 5000 / 1e9
    require_equal(dataset(tmp_path, "pil", gigabytes=limit)[request(0)], dataset("", "pil")[request(0)])
    cache = dataset(tmp_path, "pil", gigabytes=limit).caches.decoded
    assert isinstance(cache, DecodedCache)
    kept, total = cache.held([0])
    assert 0 < kept < total == ROWS
    assert cache.folder.used() <= cache.folder.limit + HEAD.size * ROWS
