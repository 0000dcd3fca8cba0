"""The memory of a forward: tensors that it holds at once are counted, those that stood before are not."""

import pytest
import torch
from torch import Tensor, nn

from kdcache.networks.forward_memory import ForwardMemory, LiveBytes
from kdcache.networks.small import convnet


def held(network: nn.Module, images: Tensor) -> tuple[int, int]:
    """The most bytes that a forward held, and those that it left."""
    with torch.inference_mode(), LiveBytes() as live:
        answer = network(images)
    left = live.live
    del answer
    assert live.live == 0
    return live.peak, left


def test_a_chain_of_layers_holds_two_outputs_at_once() -> None:
    network = nn.Sequential(nn.Linear(100, 300), nn.Tanh(), nn.Linear(300, 7)).eval()
    assert held(network, torch.randn(50, 100)) == (2 * 50 * 300 * 4, 50 * 7 * 4)


def test_what_is_written_in_place_and_what_is_a_view_counts_once() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Identity()).eval()
    assert held(network, torch.randn(3, 1, 8, 8)) == (3 * 4 * 64 * 4, 3 * 4 * 64 * 4)


def test_weights_and_images_count_nothing() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1000, 10))

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :10] @ self.weight.t().reshape(10, 1000)[:, :5]

    peak, _ = held(Wide(), torch.randn(4, 1, 100, 100))
    assert 4 * 5 * 4 <= peak <= 4 * 5 * 4 + 10 * 1000 * 4  # the transposed weight may be copied


def test_what_a_larger_batch_holds_is_bounded_by_a_smaller_one() -> None:
    network = convnet(width=6).eval()
    peaks = {rows: held(network, torch.randn(rows, 1, 16, 16))[0] for rows in (64, 256)}
    small = ForwardMemory(64, peaks[64])
    assert peaks[256] <= small.beyond(256) <= 1.05 * peaks[256]
    assert small.beyond(64) == small.beyond(3) == ForwardMemory().beyond(256) == 0


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_weights_that_autocast_narrows_are_over_counted_and_never_left_out(precision: torch.dtype) -> None:
    network = convnet(width=8).eval()
    with torch.autocast("cpu", precision):
        peaks = {rows: held(network, torch.randn(rows, 1, 16, 16))[0] for rows in (64, 256)}
    assert peaks[256] <= ForwardMemory(64, peaks[64]).beyond(256)
