"""Pictures of rows that flipped: right at the baseline and wrong elsewhere, or the reverse. Only on request."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from kdcache.pipelines.compare.comparison import Comparison, Picture
from kdcache.views.data import Data
from kdcache.views.reading import read_sample

SIDE = 128  # pixels of a thumbnail, at most


def flipped(comparison: Comparison, data: Data, samples: npt.NDArray[np.int64], *, count: int) -> tuple[Picture, ...]:
    """Up to `count` rows on which the first members of the baseline and of some other group disagree, one of them
    right: in turn those that were lost and those that were won. `samples` [N]: the index of each row's sample."""
    firsts = {group.name: group.members[0].answers.decisions for group in comparison.groups}
    baseline, labels = firsts[comparison.baseline], comparison.labels
    others = [decisions for name, decisions in firsts.items() if name != comparison.baseline]
    if not others:
        return ()
    was_right = baseline == labels
    lost = np.flatnonzero(was_right & np.any([other != labels for other in others], axis=0) & (labels >= 0))
    won = np.flatnonzero(~was_right & np.any([other == labels for other in others], axis=0) & (labels >= 0))
    chosen = list(_in_turn(lost.tolist(), won.tolist()))[:count]
    return tuple(
        Picture(
            sample=str(data.ids[int(samples[row])]),
            label=int(labels[row]),
            pixels=thumbnail(read_sample(data.samples, int(samples[row]), str(data.ids[int(samples[row])]))),
            decisions={name: int(decisions[row]) for name, decisions in firsts.items()},
            teacher=int(comparison.teacher.decisions[row]),
        )
        for row in chosen
    )


def _in_turn(lost: list[int], won: list[int]) -> Iterator[int]:
    for number in range(max(len(lost), len(won))):
        yield from lost[number : number + 1]
        yield from won[number : number + 1]


def thumbnail(image: Tensor | Image.Image) -> npt.NDArray[np.uint8]:
    """[H, W, 3] u8 of at most 128 pixels a side; a tensor's first three channels, or its first one as grey."""
    if isinstance(image, Tensor):
        channels = image[:3] if len(image) >= 3 else image[:1]
        picture: Image.Image = to_pil_image(channels).convert("RGB")  # type: ignore[no-untyped-call]
    else:
        picture = image.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    return np.asarray(picture)
