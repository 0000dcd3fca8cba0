"""Pictures of a folder whose classes have no names: a teacher of 1,000 classes keeps its own, labels are numbers."""

from pathlib import Path

import numpy as np

from kdcache.views.decoding import DECODERS, Decoding
from kdcache.views.encoded_images import EncodedImages
from kdcache.views.folder_source import ImageFiles
from kdcache.views.image_folder import list_images

UNNAMED = f"{__name__}:pictures"


def pictures(root: str, decoder: str = DECODERS[0]) -> EncodedImages:
    """The samples of `folder:ROOT`, without the names of its classes."""
    images = list_images(Path(root))
    labels = np.asarray(images.numbers, dtype=np.int32)
    return EncodedImages(ImageFiles(Path(root), images.names), labels, Decoding(decoder))
