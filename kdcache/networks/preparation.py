"""Input preparation: views become network input, by mean and standard deviation of each channel, on its device.

On a CPU fresh memory is the largest cost here: 64 views of 224 pixels take 1.5 ms each through three fresh tensors and
0.35 ms through one buffer (one thread). So a teacher's batches are made in buffers that are used again, and a student's
in memory that nobody holds any more.
"""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from kdcache.base.devices import to_device
from kdcache.base.reused_memory import ReusedMemory
from kdcache.errors import InvalidInputError
from kdcache.networks.answers import are_tokens

STD_MAX = 10.0  # of views in 0..1; those of a larger one are near-equal
REUSED = 2**18  # numbers of a batch; malloc keeps smaller ones itself
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def default_normalisation(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's mean and std for three channels, one half each for others."""
    return (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)


class Preparation:
    """Makes views network input, channels last: less mean, by std, u8 as 0..1. Float views keep their values where mean
    and std are empty, and tokens [B, S] become i64. The input lies in memory of its own."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: str) -> None:
        self.mean, self.std, self.device = mean, std, device
        self._scale = torch.tensor([1.0 / (255.0 * value) for value in std], device=device)[None, :, None, None]
        self._float_scale = torch.tensor([1.0 / value for value in std], device=device)[None, :, None, None]
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self._shift = torch.tensor(shift, device=device)[None, :, None, None]
        self._memory = ReusedMemory()

    def __call__(self, images: Tensor) -> Tensor:
        images = to_device(images, self.device)
        if are_tokens(images):
            return images.to(torch.int64, copy=True)
        if images.dtype != torch.uint8:
            images = images.to(memory_format=torch.channels_last, copy=True)  # a network may write into its input
            return self._normalised_floats(images) if self.mean and images.is_floating_point() else images
        return self.normalise(self._floats(images.shape, images.device).copy_(images))

    def _floats(self, shape: torch.Size, device: torch.device) -> Tensor:
        """A tensor of any f32 values, channels last, in memory that no one else uses."""
        if device.type != "cpu" or shape.numel() < REUSED:
            return torch.empty(shape, dtype=torch.float32, device=device, memory_format=torch.channels_last)
        rows, channels, height, width = shape
        return torch.from_numpy(self._memory.array((rows, height, width, channels))).permute(0, 3, 1, 2)

    def normalise(self, values: Tensor) -> Tensor:
        """The f32 values 0..255 of u8 views, on their device, made network input in place."""
        self._require_channels(values)
        return torch.addcmul(self._shift, values, self._scale, out=values)

    def _normalised_floats(self, values: Tensor) -> Tensor:
        self._require_channels(values)
        return torch.addcmul(self._shift.to(values.dtype), values, self._float_scale.to(values.dtype))

    def _require_channels(self, values: Tensor) -> None:
        if values.shape[1] != len(self.mean):
            raise InvalidInputError(
                f"views have {values.shape[1]} channels, mean and std have {len(self.mean)}; set --mean and --std"
            )


def float_range(views: Tensor) -> int | None:
    """1 for float views from 0 to 1, 255 for those from 0 to 255, as images have them before they are normalised; None
    for any other."""
    if not views.is_floating_point() or not views.numel() or not bool((views >= 0).all()):
        return None
    highest = float(views.max())
    return 1 if highest <= 1 else 255 if highest <= 255 else None


@dataclass
class _Slot:
    """Pinned host memory for one batch, and the event after which its copy to the device has been made."""

    pinned: Tensor
    copied: torch.cuda.Event | None = None


class BatchBuffers:
    """Prepares batches from their pieces [G, ch, H, W]. The next batch overwrites the one that was returned."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._buffer = torch.empty(0)
        self._slots: list[_Slot] = []
        self._turn = 0

    def __call__(self, pieces: list[Tensor], rows: int) -> Tensor:
        """Network input [rows, ch, H, W] on the device. Rows beyond those of the pieces repeat the first one."""
        if torch.device(self._preparation.device).type == "cuda":
            return self._preparation(self._on_device(pieces, rows))
        if self._preparation.device == "cpu" and pieces[0].dtype == torch.uint8:
            shape = (rows, *pieces[0].shape[1:])
            if not _holds(self._buffer, shape):
                self._buffer = torch.empty(shape, memory_format=torch.channels_last)
            return self._preparation.normalise(_fill(self._buffer[:rows], pieces))
        return self._preparation(_fill(torch.empty((rows, *pieces[0].shape[1:]), dtype=pieces[0].dtype), pieces))

    def _on_device(self, pieces: list[Tensor], rows: int) -> Tensor:
        """The batch on the device, its copy still under way. Host memory is used again two batches later, once read."""
        shape, dtype = (rows, *pieces[0].shape[1:]), pieces[0].dtype
        if not self._slots or not _holds(self._slots[0].pinned, shape) or self._slots[0].pinned.dtype != dtype:
            torch.cuda.synchronize(self._preparation.device)
            self._slots = [_Slot(torch.empty(shape, dtype=dtype, pin_memory=True)) for _ in range(2)]
        slot = self._slots[self._turn]
        self._turn = 1 - self._turn
        if slot.copied is not None:
            slot.copied.synchronize()
        images = _fill(slot.pinned[:rows], pieces).to(self._preparation.device, non_blocking=True)
        slot.copied = record_event(self._preparation.device)
        return images


def _holds(buffer: Tensor, shape: tuple[int, ...]) -> bool:
    """True where the buffer's first rows are a batch of this shape."""
    return buffer.ndim == len(shape) and buffer.shape[1:] == shape[1:] and len(buffer) >= shape[0]


def _fill(buffer: Tensor, pieces: list[Tensor]) -> Tensor:
    start = 0
    for piece in pieces:
        buffer[start : start + len(piece)].copy_(piece)
        start += len(piece)
    buffer[start:].copy_(pieces[0][:1].expand_as(buffer[start:]))
    return buffer


def record_event(device: str) -> torch.cuda.Event | None:
    """An event after which all work now under way on a device's stream is done; None on a CPU, where none is."""
    if torch.device(device).type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(torch.device(device)))  # the copies run on this device's stream
    return event


def normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], *, channels: int, floating: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of views: those given, by default ImageNet's or one half for u8, and none for floats, which the
    transform has normalised. Raises InvalidInputError."""
    if bool(mean) != bool(std):
        raise InvalidInputError(f"mean is {mean} and std is {std}: give both or neither")
    if not mean:
        return ((), ()) if floating else default_normalisation(channels)
    if len(mean) != channels or len(std) != channels or not (min(std) > 0 and all(map(isfinite, (*mean, *std)))):
        raise InvalidInputError(f"views have {channels} channels; mean {mean} and std {std} do not fit them")
    if not floating and (max(mean) > 1 or max(std) > STD_MAX):
        pairs = [",".join(f"{number / 255:.6g}" for number in numbers) for numbers in (mean, std)]
        raise InvalidInputError(
            f"mean is {mean} and std is {std}, and 8-bit values count as 0..1, so views would be near-equal; "
            f"where they are meant for 0..255, give --mean {pairs[0]} --std {pairs[1]}"
        )
    return mean, std
