"""Where a network's own input is said: timm's pretrained_cfg, torchvision's weights, the image processor of a folder of
transformers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import torchvision

from kdcache.errors import InvalidInputError
from kdcache.networks.transformers_folder import CONFIG, folder_of, is_transformers, library, require_data_alone

Numbers = tuple[float, ...]
PROCESSOR = "preprocessor_config.json"
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by the numbers of PIL
SQUASHED_FROM = (
    384  # the side from which ConvNeXt's pictures are not cropped (its authors' evaluation, and its processor)
)


@dataclass(frozen=True)
class OwnInput:
    """The input that a network wants: `mean` and `std` by channel, empty where they are kdcache's default; `sizes`
    (height, width), empty where any will do; and `source`, which says so. `with_floats`: float views are normalised by
    them as well.

    A picture gets the first of the sizes by `interpolation`: its shorter side is resized to `resize`, with `squash`
    both sides, and the centre cropped; "" and 0 where nothing is said.
    """

    source: str
    mean: Numbers = ()
    std: Numbers = ()
    sizes: tuple[tuple[int, int], ...] = ()
    with_floats: bool = False
    interpolation: str = ""
    resize: int = 0
    squash: bool = False

    @property
    def side(self) -> int:
        """The side of its square pictures; 0 where they are none, or any size will do."""
        return self.sizes[0][0] if self.sizes and len(set(self.sizes[0])) == 1 else 0


def of_spec(spec: str, arguments: dict[str, Any], *, weights: bool = False) -> OwnInput | None:
    """The input that a spec tells before its network is built, with weights of a file or without. None: nobody
    knows."""
    kind, _, name = spec.partition(":")
    if kind == "torchvision" and not weights:
        return _of_torchvision(name, arguments)
    if is_transformers(spec) and arguments.get("task", "image") == "image":
        return _of_transformers(spec, arguments)
    return _of_timm_name(name, arguments) if kind == "timm" else None


def of_config(config: Any, source: str, arguments: dict[str, Any]) -> OwnInput | None:
    """The input that a configuration of timm's form tells, as a dict or an object."""
    settings: Mapping[str, Any] = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    sizes = [tuple(size[1:]) for name in ("input_size", "test_input_size") if (size := settings.get(name))]
    if isinstance(side := arguments.get("img_size"), int):
        sizes = [(side, side)]
    share, mode = settings.get("crop_pct") or 0, settings.get("crop_mode") or "center"
    is_said = sizes and share and mode in ("center", "squash")
    return _checked(
        source, settings.get("mean"), settings.get("std"), sizes,
        interpolation=settings.get("interpolation") or "",
        resize=floor(sizes[0][0] / share) if is_said else 0,
        squash=mode == "squash",
    )  # fmt: skip


def _of_timm_name(name: str, arguments: dict[str, Any]) -> OwnInput | None:
    if ":" in name or any(key.startswith("pretrained_cfg") for key in arguments):
        return None  # the hub's, or one of the user's own: known once the network is built
    try:
        import timm

        config = timm.get_pretrained_cfg(name)
    except (ImportError, RuntimeError, KeyError, ValueError):
        return None
    return of_config(config, "timm's pretrained_cfg", arguments)


def _of_torchvision(name: str, arguments: dict[str, Any]) -> OwnInput | None:
    if not arguments.get("weights"):
        return None
    kinds = torchvision.models.get_model_weights(name)
    if (member := str(arguments["weights"]).rpartition(".")[2]) not in kinds.__members__:
        return None
    weights = kinds[member]
    transforms = weights.transforms()
    size, resize = (getattr(transforms, key, None) for key in ("crop_size", "resize_size"))
    return _checked(
        f"torchvision's {weights}",
        getattr(transforms, "mean", None),
        getattr(transforms, "std", None),
        [(size[0], size[-1])] if size else [],
        interpolation=getattr(getattr(transforms, "interpolation", None), "value", ""),
        resize=resize[0] if resize and len(resize) == 1 else 0,
    )


NOT_FED = ("do_flip_channel_order", "include_top", "rescale_offset")  # of processors: what mean and std do not say


def _of_transformers(spec: str, arguments: dict[str, Any]) -> OwnInput | None:
    """The input by a folder's image processor. Raises InvalidInputError for one that cannot be read."""
    folder = folder_of(spec, arguments)
    if not (folder / PROCESSOR).is_file():
        return None
    if (folder / CONFIG).is_file():
        require_data_alone(folder, spec, "teacher")
    try:
        processor = library().AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InvalidInputError(f"{spec}: its {PROCESSOR} cannot be read: {reason}; mend it or remove it") from error
    if others := [name for name in NOT_FED if getattr(processor, name, None)]:
        raise InvalidInputError(
            f"{spec}: its {PROCESSOR} asks for {', '.join(others)}, which views are not fed by; wrap the network in a "
            "file.py:callable that does it, or remove the file and give --mean and --std"
        )
    factor = processor.rescale_factor * 255 if processor.do_rescale else 255.0
    scale = 1.0 if abs(factor - 1) < 1e-6 else factor  # kdcache's 8-bit values are 0..1
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    size, resize, is_squashed = _resizing(processor)
    resampling = getattr(processor, "resample", None)
    return _checked(
        f"{folder.name}'s {PROCESSOR}",
        [value / scale for value in numbers_of(mean)],
        [value / scale for value in numbers_of(std)],
        [size] if size else [],
        interpolation="" if resampling is None else RESAMPLING[int(resampling)],
        resize=resize,
        squash=is_squashed,
    )


def _resizing(processor: Any) -> tuple[tuple[int, int] | None, int, bool]:
    """The size (height, width) of a processor's pictures, the side that is resized to before the crop, 0 where none is,
    and true where both sides are."""
    size = processor.size if processor.do_resize else None
    both, shorter = (_part(size, "height"), _part(size, "width")), _part(size, "shortest_edge")
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    cropped = _part(crop, "height"), _part(crop, "width")
    share = getattr(processor, "crop_pct", None)
    if shorter and share:
        is_whole = shorter >= SQUASHED_FROM
        return (shorter, shorter), shorter if is_whole else int(shorter / share), is_whole
    if all(both):
        return cropped if all(cropped) else both, both[0] if both[0] == both[1] else 0, True
    resized = int(shorter * 256 / 224) if type(processor).__name__.startswith("Levit") else shorter
    return cropped if all(cropped) else None, resized, False


def _part(size: Any, name: str) -> int:
    value = size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)
    return int(value or 0)


def _checked(
    source: str, mean: Any, std: Any, sizes: Sequence[Any], *, interpolation: str, resize: int, squash: bool = False
) -> OwnInput | None:
    numbers = numbers_of(mean), numbers_of(std)
    if not numbers[0] or len(numbers[0]) != len(numbers[1]) or min(numbers[1]) <= 0:
        return None
    sides = tuple((int(height), int(width)) for height, width in sizes)
    return OwnInput(source, *numbers, sides, interpolation=interpolation, resize=resize if sides else 0, squash=squash)


def numbers_of(values: Any) -> Numbers:
    """A list of numbers as a tuple; empty for anything else."""
    is_list = isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values)
    return tuple(float(value) for value in values) if is_list else ()
