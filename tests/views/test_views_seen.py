"""views, as they are seen: refusals, fingerprints, thumbnails and mixed images."""

import struct
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from torchvision.transforms import v2

from kdcache.base.arrays import IntArray
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.store.plan import Mixing
from kdcache.views.draw import draw_view, own_generators, stack_views, thumbnails
from kdcache.views.fingerprint import fingerprint
from kdcache.views.mixing import mix_images, mix_rows, with_partners
from kdcache.views.view_stack import ViewRequest
from kdcache.views.workers import draw_requests
from tests.kits.views import Mix, Pictures, pictures, view_dataset

ROWS = 9


def test_views_of_two_sizes_are_refused_with_both() -> None:
    images = (torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 9, dtype=torch.uint8))
    with pytest.raises(
        InvalidInputError, match=r"\[3, 8, 8\] torch.uint8 and (sample 1 gives )?\[3, 8, 9\].*--transform"
    ):
        view_dataset(Pictures(images, (0, 1)), v2.Identity())[ViewRequest(ViewSpan(0, 1), np.arange(2))]
    with pytest.raises(InvalidInputError, match="views differ"):
        stack_views([images[0], images[0].float()])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_while_drawing_reads_the_same_from_a_worker(workers: int) -> None:
    dataset = view_dataset(pictures(3), lambda image: image[0])
    with pytest.raises(InvalidInputError, match=r"^the view of sample \d+ has shape \[17, 15\]; a view is [^\n]*$"):
        list(draw_requests(dataset, [ViewRequest(ViewSpan(0, 1), np.arange(2))] * 3, workers))


def test_a_view_without_three_axes_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"shape \[17, 15\]"), own_generators():
        draw_view(lambda image: image[0], pictures(1).images[0], 0, 0, 0)


def unmixed(rows: int) -> Mixing:
    return Mixing(np.arange(rows), np.ones(rows), np.zeros((rows, 4), dtype=np.int64))


def test_a_fingerprint_is_the_documented_hash() -> None:
    image = pictures(1).images[0]
    header = b"uint8[3,17,15]" + image.numpy().tobytes() + struct.pack("<qd4q", 0, 1.0, 0, 0, 0, 0)
    assert fingerprint(image, unmixed(1), 0) == xxhash.xxh3_64_intdigest(header)


@pytest.mark.parametrize("change", ["pixel", "shape", "dtype", "partner", "lam", "box"])
def test_a_fingerprint_notices(change: str) -> None:
    image, mixing = pictures(1).images[0].clone(), unmixed(1)
    before = fingerprint(image, mixing, 0)
    if change == "pixel":
        image[2, 16, 14] ^= 1
    elif change == "shape":
        image = image.reshape(3, 15, 17)
    elif change == "dtype":
        image = image.view(torch.int8)
    else:
        values: dict[str, IntArray | Any] = {"partner": mixing.partners, "lam": mixing.lam, "box": mixing.boxes[0]}
        values[change][0] += 1
    assert fingerprint(image, mixing, 0) != before


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_thumbnails_are_area_means_of_three_channels(channels: int) -> None:
    images = torch.stack(
        [torch.from_numpy(np.random.RandomState(i).randint(0, 256, (channels, 16, 24), np.uint8)) for i in (0, 1)]
    )
    small = thumbnails(images)
    assert (small.shape, small.dtype) == ((2, 3, 8, 8), np.uint8)
    means = images.numpy().reshape(2, channels, 8, 2, 8, 3).astype(np.float64).mean(axis=(3, 5))
    for shown, channel in enumerate({1: (0, 0, 0), 2: (0, 1, 0)}.get(channels, (0, 1, 2))):
        assert np.abs(small[:, shown] - means[:, channel]).max() <= 0.5 + 1e-4


def test_thumbnails_of_floats_cover_normalised_images() -> None:
    images = torch.linspace(-2.1, 2.6, 2 * 3 * 64).reshape(2, 3, 8, 8)
    small = thumbnails(images)
    assert np.abs(small - (48.0 * images.numpy() + 104.0)).max() <= 0.5 + 1e-3
    assert thumbnails(torch.full((1, 3, 8, 8), 9.0)).max() == 255
    assert thumbnails(torch.full((1, 3, 8, 8), -9.0)).min() == 0


def test_thumbnails_of_views_smaller_than_themselves() -> None:
    assert thumbnails(torch.full((1, 1, 4, 4), 9, dtype=torch.uint8)).tolist() == np.full((1, 3, 8, 8), 9).tolist()


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixing_is_what_its_paper_says(mix: Mix) -> None:
    dataset = view_dataset(pictures(ROWS), v2.RandomResizedCrop(13, antialias=True), mix)
    drawn = dataset[ViewRequest(ViewSpan(0, 1), np.arange(ROWS))]
    images, mixing = drawn.images[0].double(), drawn.mixing[0]
    mixed = mix_images(images, mixing, mixing.partners, mix)
    for row, partner in enumerate(mixing.partners.tolist()):
        lam, (x1, y1, x2, y2) = mixing.lam[row], mixing.boxes[row]
        if mix == "mixup":
            expected = lam * images[row] + (1 - lam) * images[partner]
        else:
            expected = images[row].clone()
            expected[:, y1:y2, x1:x2] = images[partner][:, y1:y2, x1:x2]
            assert lam == pytest.approx(1 - (x2 - x1) * (y2 - y1) / (13 * 13))
        assert torch.allclose(mixed[row], expected, atol=1e-9)
    assert (mixing.partners == np.arange(ROWS)).sum() == 1  # the odd one out


@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
def test_partners_are_found_wherever_they_lie_in_a_request(mix: Mix) -> None:
    dataset = view_dataset(pictures(ROWS), v2.Identity(), mix)
    whole = dataset[ViewRequest(ViewSpan(1, 2), np.arange(ROWS))]
    expected = mix_images(whole.images[0].float(), whole.mixing[0], whole.mixing[0].partners, mix)
    chosen = np.array([7, 2, 5])
    positions = with_partners(dataset.plan, chosen, 1, ROWS)
    assert positions[:3].tolist() == chosen.tolist()
    assert len(np.unique(positions)) == len(positions)
    assert mix != "none" or len(positions) == 3
    drawn = dataset[ViewRequest(ViewSpan(1, 2), positions)]
    assert torch.equal(mix_rows(drawn.images[0].float(), drawn.mixing[0], positions, 3, mix), expected[chosen])
