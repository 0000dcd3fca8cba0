"""Pictures of a folder whose classes have no names: a teacher of 1,000 classes keeps its own, labels are numbers."""

from pathlib import Path

import numpy as np

from kdcache.views.decoding import DECODERS, ImageFiles
from kdcache.views.image_folder import list_images

UNNAMED = f"{__name__}:pictures"


def pictures(root: str, decoder: str = DECODERS[0]) -> ImageFiles:
    """The samples of `folder:ROOT`, without the names of its classes."""
    images = list_images(Path(root))
    return ImageFiles(Path(root), images.names, np.asarray(images.numbers, dtype=np.int32), decoder)
