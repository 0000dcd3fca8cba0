"""Transforms by name: the presets, a user's own, and the clean variant on which a teacher is checked."""

import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import nn
from torchvision.transforms import v2

from kdcache.base.records import require_equal, validated
from kdcache.base.specs import call, load_callable, own_source, portable_name
from kdcache.base.user_files import without_file, without_folders
from kdcache.errors import InvalidInputError
from kdcache.store.plan import TransformSpec, ViewPlan
from kdcache.views.images import array_image, plain_image, view_tensor
from kdcache.views.preset_ranges import require_ranges

Transform = Callable[[Any], Any]


class PadCrop(nn.Module):
    """Pad by `padding` zero pixels and crop back to the image's own size at random (He et al. 2016, section 4.2)."""

    def __init__(self, padding: int = 4) -> None:
        super().__init__()
        self.padding = padding
        self._crops: dict[tuple[int, ...], nn.Module] = {}

    def forward(self, image: Any) -> Any:
        size = tuple(v2.functional.get_size(image))
        if size not in self._crops:
            self._crops[size] = v2.RandomCrop(size, padding=self.padding)
        return self._crops[size](image)


def none() -> Transform:
    """The sample as it is."""
    return v2.Identity()


def light(padding: int = 4, flip: float = 0.5) -> Transform:
    """Pad-crop at the image's own size, and a horizontal flip."""
    return v2.Compose([PadCrop(padding), v2.RandomHorizontalFlip(flip)])


def imagenet(
    size: int = 224,
    scale: tuple[float, float] = (0.08, 1.0),
    flip: float = 0.5,
    interpolation: str = "bilinear",
) -> Transform:
    """RandomResizedCrop and a horizontal flip."""
    mode = v2.InterpolationMode(interpolation)
    crop = v2.RandomResizedCrop(size, (scale[0], scale[1]), interpolation=mode, antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(flip)])


def randaugment(
    size: int = 0, num_ops: int = 2, magnitude: int = 9, padding: int = 4, scale: tuple[float, float] = (0.08, 1.0)
) -> Transform:
    """RandAugment (Cubuk et al. 2020) after RandomResizedCrop to `size` (0: pad-crop) and a flip."""
    return v2.Compose([*_frame(size, padding, scale), v2.RandAugment(num_ops=num_ops, magnitude=magnitude)])


def trivialaugment(size: int = 0, padding: int = 4, scale: tuple[float, float] = (0.08, 1.0)) -> Transform:
    """TrivialAugmentWide (Mueller & Hutter 2021) after RandomResizedCrop to `size` (0: pad-crop) and a flip."""
    return v2.Compose([*_frame(size, padding, scale), v2.TrivialAugmentWide()])


def center(size: int = 224, resize: int = 0, interpolation: str = "bilinear", squash: bool = False) -> Transform:
    """Resize the shorter side (to 8/7 of `size` by default) and crop the centre: for validation and clean rows. With
    `squash` both sides are resized (to `size` by default), whatever their ratio."""
    side = resize or cropped_from(size, squash=squash)
    mode = v2.InterpolationMode(interpolation)
    return v2.Compose([
        v2.Resize([side, side] if squash else side, interpolation=mode, antialias=True), v2.CenterCrop(size)
    ])  # fmt: skip


def cropped_from(size: int, *, squash: bool) -> int:
    """The side that `center` resizes to by default."""
    return size if squash else size * 8 // 7


PRESETS: dict[str, Callable[..., Transform]] = {
    "none": none,
    "light": light,
    "imagenet": imagenet,
    "randaugment": randaugment,
    "trivialaugment": trivialaugment,
    "center": center,
}


def build_transform(
    name: str, arguments: dict[str, Any], like: TransformSpec | None = None
) -> tuple[Transform, TransformSpec]:
    """The transform that a name and arguments describe, and its record in the view plan.

    `name` is a preset's, or `package.module:callable` / `file.py:callable`: a factory that returns the transform.
    `like`: the record of a store that stands. It is taken where equal code lies in a file of another name; of the same
    preset the arguments that a teacher's own input may have chosen are its, unless they are given.
    """
    if name in PRESETS:
        arguments = arguments if like is None else _named_again(name, arguments, like)
        require_ranges(name, arguments)
        return call(PRESETS[name], arguments, f"transform {name}"), TransformSpec(name=name, arguments=arguments)
    if ":" not in name:
        presets = ", ".join(PRESETS)
        raise InvalidInputError(f"there is no transform {name!r}; choose {presets}, or file.py:callable")
    transform = call(load_callable(name, "transform"), arguments, f"transform {name}")
    if not callable(transform):
        raise InvalidInputError(f"transform {name} returned a {type(transform).__name__}; it must return a callable")
    spec = describe(transform, portable_name(name), arguments)
    return transform, like if like is not None and _is_alike(spec, like) else spec


def _is_alike(spec: TransformSpec, like: TransformSpec) -> bool:
    """True for the records of equal code and arguments, whatever the names of files and factories."""
    one, other = (without_file(entry.text, entry.name) for entry in (spec, like))
    return bool(one) and one == other and spec.arguments == like.arguments


def require_transform(spec: TransformSpec, stored: TransformSpec, store: str, advice: str) -> None:
    """Raises MismatchError where the transform that settings name is not that of a store's views."""
    headline = f"the views of {store} were drawn by another transform than the settings name:"
    require_equal(stored, spec, headline, advice, "transform.")


def stored_transform(spec: TransformSpec) -> Transform:
    """The preset that a store's plan names. Raises InvalidInputError for any other transform: a store is data, and code
    that it names is never imported."""
    if spec.name not in PRESETS:
        raise InvalidInputError(
            f"the store's views were drawn by {spec.name}, a transform of the user's own, which is never imported "
            f"because a store names it; name it again with --transform (--val-transform) {spec.name} or transform="
        )
    return build_transform(spec.name, spec.arguments)[0]


def describe(transform: Transform, name: str, arguments: dict[str, Any] | None = None) -> TransformSpec:
    """The record that tells one user's transform from another: its repr, and a digest of the user's source in it."""
    parts = list(_parts(transform))
    for part in parts:
        if isinstance(part, v2.MixUp | v2.CutMix):
            kind = type(part).__name__
            raise InvalidInputError(f"transform {name} holds v2.{kind}, which mixes batches; use --mix {kind.lower()}")
    text = without_folders(re.sub(" at 0x[0-9a-fA-F]+", "", repr(transform)))
    if sources := [source for part in parts if (source := _source(part))]:
        text += "; source sha256 " + hashlib.sha256("\n".join(sources).encode()).hexdigest()
    return TransformSpec(name=name, arguments=arguments or {}, text=text)


def _source(part: Any) -> str:
    """The source of a function or class of the user's own; "" where its repr says all, or there is no source."""
    code = part if inspect.isroutine(part) else type(part)
    if not (inspect.isroutine(part) or isinstance(part, nn.Module) or " at 0x" in repr(part)):
        return ""
    return own_source(code)


def clean_transform(spec: TransformSpec) -> Transform | None:
    """The preset without its augmentation; None for a user's own transform, which has no known clean form."""
    if spec.name not in PRESETS:
        return None
    return center(**arguments) if (arguments := clean_arguments(spec)) else none()


def clean_arguments(spec: TransformSpec) -> dict[str, Any]:
    """The arguments by which `center` gives clean views like a preset's: of its size, resized as it does; empty where
    its views have the sample's own size, or the transform is a user's."""
    size, names = preset_size(spec), (*RESIZING, *(("resize",) if spec.name == "center" else ()))
    return {"size": size, **{name: spec.arguments[name] for name in names if name in spec.arguments}} if size else {}


RESIZING = ("interpolation", "squash")
OF_TEACHERS = ("size", "resize", *RESIZING)  # arguments that a teacher's own input may choose


def _named_again(name: str, arguments: dict[str, Any], stored: TransformSpec) -> dict[str, Any]:
    """The arguments of a preset that is named for views that stand."""
    chosen = {key: stored.arguments[key] for key in OF_TEACHERS if name == stored.name and key in stored.arguments}
    return {**chosen, **arguments}


def preset_size(spec: TransformSpec) -> int:
    """Height and width of a preset's views; 0 where they are the sample's own, or the transform is a user's."""
    default = 224 if spec.name in ("imagenet", "center") else 0
    return int(spec.arguments.get("size", default)) if spec.name in PRESETS else 0


# none of these writes into its input, and all draw from torch's generator alone
_KNOWN = (
    PadCrop, v2.Compose, v2.Identity, v2.RandomCrop, v2.RandomHorizontalFlip, v2.RandomResizedCrop, v2.Resize,
    v2.CenterCrop,
)  # fmt: skip


def is_known(transform: Transform) -> bool:
    """True where all parts of the transform leave their input as it was and draw from torch's generator alone.

    Its views need no copy of the sample, and no other generator seeded.
    """
    return all(type(part) in _KNOWN for part in _parts(transform))


def as_tensor(image: Any, index: int | None = None) -> torch.Tensor:
    """A view as a plain contiguous tensor [channels, height, width], uint8 from images, or as the transform left it.

    Raises InvalidInputError, which names sample `index`, for what is no image."""
    return view_tensor(image, "the view" if index is None else f"the view of sample {index}")


def image_of(sample: Any, index: int, transform: Transform) -> Any:
    """Sample `index` as its transform takes it: an image, where the transform would not act on what the data set gives.

    A user's own transform that takes arrays, or a PIL image's own range, is handed them. Raises InvalidInputError,
    which names the sample, where it cannot be read as an image.
    """
    if isinstance(sample, torch.Tensor) or (isinstance(sample, Image) and sample.mode in ("RGB", "L")):
        return sample
    if isinstance(sample, np.ndarray) and takes_images(transform):
        return array_image(sample, f"sample {index}")
    if isinstance(sample, Image) and takes_images(transform):
        return plain_image(sample, f"sample {index}", deep=_keeps_depth(transform))
    return sample


_TAKE_ARRAYS = ("ToTensor", "ToPILImage", "Lambda")  # of torchvision, and take them in another way than an image
_CHANGE_DEPTH = (*_TAKE_ARRAYS, "ToImage", "PILToTensor", "ToDtype", "ConvertImageDtype", "Normalize")


def takes_images(transform: Transform) -> bool:
    """True where the first part that acts is torchvision's, timm's or a preset's, which act on images alone."""
    members = [part for part in _members(transform) if not isinstance(part, nn.Identity | v2.Identity)]
    if members:
        is_row = type(transform).__name__ in ("Compose", "Sequential")  # else one of its members is chosen
        return all(map(takes_images, members[:1] if is_row else members))
    return _package(transform) in _IMAGE_PACKAGES and type(transform).__name__ not in _TAKE_ARRAYS


def _keeps_depth(transform: Transform) -> bool:
    """True where no part changes the depth of pixels, nor may do so."""
    leaves = [part for part in _parts(transform) if not list(_members(part))]
    return all(_package(part) in _IMAGE_PACKAGES and type(part).__name__ not in _CHANGE_DEPTH for part in leaves)


_IMAGE_PACKAGES = ("torchvision", "timm", "kdcache.views")


def _package(part: Any) -> str:
    """The package whose code a transform runs: a class of the user's own may leave the call to its parent."""
    if isinstance(part, nn.Identity):
        return "torchvision"
    code = getattr(type(part), "forward", type(part).__call__) if not inspect.isroutine(part) else part
    module = str(getattr(code, "__module__", ""))
    return "kdcache.views" if module.startswith("kdcache.views.") else module.partition(".")[0]


def _members(part: Any) -> list[Any]:
    """The transforms in a container."""
    members = getattr(part, "transforms", part if isinstance(part, nn.Sequential) else ())
    return list(members) if isinstance(members, list | tuple | nn.ModuleList | nn.Sequential) else []


def _frame(size: int, padding: int, scale: tuple[float, float]) -> list[nn.Module]:
    crop = v2.RandomResizedCrop(size, (scale[0], scale[1]), antialias=True) if size else PadCrop(padding)
    return [crop, v2.RandomHorizontalFlip()]


def _parts(transform: Any) -> Iterator[Any]:
    """A transform and everything inside its containers (v2 keeps their members in plain lists)."""
    yield transform
    members: list[Any] = list(transform.children()) if isinstance(transform, nn.Module) else []
    for name in ("transforms", "transform", "lambd"):
        value = getattr(transform, name, None)
        if not inspect.ismethod(value):  # v2's transforms have a method called transform
            members += value if isinstance(value, list | tuple) else [value]
    if isinstance(transform, functools.partial):
        members.append(transform.func)
    for member in members:
        if callable(member):
            yield from _parts(member)


def open_plan(
    name: str, arguments: dict[str, Any], *, mix: str, mix_alpha: float, seed: int, like: TransformSpec | None = None
) -> tuple[Transform, ViewPlan]:
    """A transform and the view plan of its views; `like` as for `build_transform`. Raises InvalidInputError."""
    transform, spec = build_transform(name, arguments, like)
    plan: ViewPlan = validated(ViewPlan, "the view plan", transform=spec, mix=mix, mix_alpha=mix_alpha, seed=seed)
    return transform, plan
