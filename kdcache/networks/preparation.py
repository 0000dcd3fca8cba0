"""Input preparation: views become network input, by mean and standard deviation of each channel, on its device."""

import torch
from torch import Tensor

from kdcache.base.devices import to_device
from kdcache.errors import InvalidInputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def default_normalisation(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's mean and std for three channels, one half each for others."""
    return (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)


class Preparation:
    """Makes views network input, channels last: u8 to 0..1, less mean, by std. Float views keep their values."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: str) -> None:
        self.mean, self.std, self.device = mean, std, device
        self._scale = torch.tensor([1.0 / (255.0 * value) for value in std], device=device)[None, :, None, None]
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self._shift = torch.tensor(shift, device=device)[None, :, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        images = to_device(images, self.device)
        if images.dtype != torch.uint8:
            return images.to(memory_format=torch.channels_last)
        values = torch.empty(images.shape, dtype=torch.float32, device=images.device, memory_format=torch.channels_last)
        return self.normalise(values.copy_(images))

    def normalise(self, values: Tensor) -> Tensor:
        """The f32 values 0..255 of u8 views, on their device, made network input in place."""
        if values.shape[1] != len(self.mean):
            raise InvalidInputError(
                f"views have {values.shape[1]} channels, mean and std have {len(self.mean)}; set --mean and --std"
            )
        return torch.addcmul(self._shift, values, self._scale, out=values)


def normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], *, channels: int, floating: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for u8 views, ImageNet's or one half where none are given. Both are empty for float views, which the
    transform has normalised. Raises InvalidInputError."""
    if bool(mean) != bool(std):
        raise InvalidInputError(f"mean is {mean} and std is {std}: give both or neither")
    if floating:
        if mean:
            raise InvalidInputError(
                "the transform gives floats, which are taken as normalised: give no --mean and --std"
            )
        return (), ()
    mean, std = (mean, std) if mean else default_normalisation(channels)
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise InvalidInputError(f"views have {channels} channels; mean {mean} and std {std} do not fit them")
    return mean, std
