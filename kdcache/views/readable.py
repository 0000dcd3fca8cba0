"""Readable samples: the first view of a data set, and those positions whose samples can be read at all."""

from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError, SampleError
from kdcache.views.draw import Samples, ViewDataset, draw_view, own_generators
from kdcache.views.reading import is_strikable, read_sample
from kdcache.views.texts import sequence_of
from kdcache.views.transforms import Transform


def first_view(transform: Transform, samples: Samples, seed: int, *, strikes: bool = False) -> Tensor:
    """View 0 [ch, H, W], or the tokens [S], of the first sample, or of the first that can be read where bad samples may
    be struck. Raises SampleError where none can."""
    for index in range(len(samples)):
        try:
            image = read_sample(samples, index)
        except SampleError as error:
            if not strikes or not is_strikable(error) or index + 1 == len(samples):
                raise
            continue
        if sequence_of(samples) > 1:
            return image  # type: ignore[no-any-return]
        with own_generators():
            return draw_view(transform, image, seed, index, 0)
    raise InvalidInputError("the data set has no samples; check its path and its split")


def readable_positions(dataset: ViewDataset, positions: IntArray) -> IntArray:
    """Those positions whose samples can be read; all of them where bad samples are not struck, and raise later on."""
    if dataset.stand_in is None:
        return positions
    with own_generators():
        return positions[[_is_readable(dataset.samples, int(dataset.order[p])) for p in positions.tolist()]]


def _is_readable(samples: Samples, index: int) -> bool:
    try:
        read_sample(samples, index)
    except SampleError as error:
        if is_strikable(error):
            return False
        raise
    return True
