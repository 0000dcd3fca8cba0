"""JPEG files to be extracted and trained from."""

from pathlib import Path

import numpy as np

from tests.kits.photographs import PHOTOGRAPHS

WIDTH, HEIGHT = 500, 375


def write_jpegs(folder: Path, count: int) -> Path:
    """`count` JPEGs of 500 x 375 pixels, quality 90, cut from photographs at random, in two folders."""
    import skimage.data
    from PIL import Image

    rng = np.random.RandomState(0)
    place = Path(skimage.data.__file__).parent
    pictures = [Image.open(place / name).convert("RGB") for name in PHOTOGRAPHS]
    for number in range(count):
        picture = pictures[number % len(pictures)]
        width = int(rng.uniform(0.5, 1.0) * min(picture.width, picture.height * WIDTH / HEIGHT))
        height = width * HEIGHT // WIDTH
        left, top = rng.randint(picture.width - width + 1), rng.randint(picture.height - height + 1)
        cut = picture.crop((left, top, left + width, top + height)).resize((WIDTH, HEIGHT))
        path = folder / "ab"[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cut.save(path, quality=90)
    return folder
