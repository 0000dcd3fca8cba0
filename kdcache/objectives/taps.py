"""Taps of a student in a training loop of one's own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from kdcache.networks.taps import Tapped
from kdcache.objectives.outputs import Outputs


@contextmanager
def taps(network: nn.Module, layers: Sequence[str]) -> Iterator[Callable[[Tensor], Outputs]]:
    """A tapped network answers `Outputs`, taps among them: `with taps(network, layers) as answer` gives a callable from
    prepared images [B, ch, H, W] to outputs in f32. The network itself stays as it is.

    A layer is named as a module, as a later call of one, as a node of the traced graph, as `LAYER@HxW` (pooled to H x
    W), or as `features`. Raises InvalidInputError for a layer that the network has not, listing its layers.

    Examples:
        >>> from kdcache.networks import convnet
        >>> with taps(convnet(), ["3", "features"]) as answer:
        ...     answer(batch.images).tap("3").shape
        torch.Size([2, 16, 8, 8])
    """
    tapped = Tapped(network, layers, "student")
    yield lambda images: Outputs.tapped(*tapped(images))
