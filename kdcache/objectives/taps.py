"""Taps of a student in a training loop of one's own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from kdcache.networks.taps import Tapped
from kdcache.objectives.outputs import Outputs


@contextmanager
def taps(network: nn.Module, layers: Sequence[str]) -> Iterator[Callable[[Tensor], Outputs]]:
    """A callable that answers `Outputs` with the taps of these layers, for prepared images [B, ch, H, W]:

        with taps(student, ["layer4", "features"]) as outputs:
            for batch in loader:
                loss = objective(outputs(batch.images), batch)

    Layers are named as in `Tapped`: modules, later calls of one, nodes of the traced graph, `LAYER@HxW`, `features`.
    The network itself stays as it is. Raises InvalidInputError for a layer that it has not, listing its layers.
    """
    tapped = Tapped(network, layers, "student")
    yield lambda images: Outputs.tapped(*tapped(images))
