"""Students that are difficult company: one works in place on its input, one explodes."""

import torch
from torch import nn

from kdcache.networks.small import convnet


def changing_its_input(num_classes: int = 10) -> nn.Module:
    """A network that works in place on the images it is given."""

    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = convnet(width=2, num_classes=num_classes)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.network(images.mul_(0.5))
            return found

    return Changing()


def exploding(num_classes: int = 10, after: int = 4) -> nn.Module:
    """A network whose answers are NaN from some training forward on."""

    class Exploding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.calls = convnet(width=2, num_classes=num_classes), 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += self.training
            found: torch.Tensor = self.network(images) * (float("nan") if self.calls > after else 1.0)
            return found

    return Exploding()
