"""A network's own input: the mean, std and size that its weights were trained with, and the choice of those it is fed.

timm's networks carry them as `pretrained_cfg`, torchvision's weights as `transforms()`. Weights of a training by
kdcache were fed as the run's settings say. A timm network built without `pretrained` has its configuration too, and is
fed by it: its weights come from timm's file, or from a training that takes the configuration by default.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from kdcache.networks.preparation import default_normalisation, float_range, normalisation
from kdcache.store.lineage import read_lineage
from kdcache.store.manifest import TeacherIdentity

Numbers = tuple[float, ...]
SETTINGS_LIMIT = 2**22  # bytes of a run's settings


@dataclass(frozen=True)
class OwnInput:
    """The input that a network wants: `mean` and `std` by channel, empty where they are kdcache's default; `sizes`
    (height, width), empty where any will do; and `source`, which says so. `with_floats`: float views are normalised by
    them as well."""

    source: str
    mean: Numbers = ()
    std: Numbers = ()
    sizes: tuple[tuple[int, int], ...] = ()
    with_floats: bool = False


@dataclass(frozen=True)
class Feeding:
    """The mean and std by which a teacher's views become its input, and notes on their choice."""

    mean: Numbers
    std: Numbers
    notes: tuple[str, ...] = ()


def own_input(network: nn.Module, spec: str, arguments: dict[str, Any], weights: str) -> OwnInput | None:
    """The input that a network of a spec wants, with weights of a file where that is not empty; None: nobody knows."""
    if weights:
        return _of_run(Path(weights)) or _of_timm(network)
    return _of_torchvision(spec, arguments) or _of_timm(network)


def feeding(
    given: tuple[Numbers, Numbers], view: Tensor, *, own: OwnInput | None, stored: TeacherIdentity | None
) -> Feeding:
    """The feeding of views like this one [ch, H, W]: mean and std as they are given, else those of the store that
    stands, else the network's own for u8, else the defaults. Raises InvalidInputError as `normalisation` does."""
    is_float, channels = view.is_floating_point(), len(view)
    is_stored = stored is not None and bool(given[0]) and given == (stored.mean, stored.std)
    default = given if is_stored else normalisation(*given, channels=channels, floating=is_float)
    own_pair = None
    if own is not None and len(own.mean) == channels and (own.with_floats or not is_float):
        own_pair = own.mean, own.std
    if any(given):
        chosen = default
    elif stored is not None and len(stored.mean) in ((0, channels) if is_float else (channels,)):
        chosen = stored.mean, stored.std
    else:
        chosen = own_pair or default
    return Feeding(*chosen, tuple(_notes(chosen, view, own, own_pair)))


def _notes(chosen: tuple[Numbers, Numbers], view: Tensor, own: OwnInput | None, own_pair: Any) -> Iterator[str]:
    mean, std = chosen
    fed = f"fed with mean {_text(mean)} and std {_text(std)}" if mean else "floats are fed as they are"
    if view.is_floating_point() and not mean and not (own and own.with_floats) and (text := _range_text(view)):
        source, pair = (own.source, (own.mean, own.std)) if own and own.mean else ("the default of 8-bit views", ())
        names = " and ".join(map(_text, pair or default_normalisation(len(view))))
        yield f"{fed}, {text}: give --mean and --std where the teacher wants them normalised ({source}: {names})"
    if own is None:
        return
    if own_pair is not None and chosen != own_pair:
        yield f"{fed}; {own.source} names {_text(own.mean)} and {_text(own.std)}"
    elif own_pair is not None and chosen != default_normalisation(len(view)):
        yield f"{fed}, by {own.source}; --mean and --std choose others"
    size = (view.shape[1], view.shape[2])
    if own.sizes and size not in own.sizes:
        yield f"views are {size[0]} x {size[1]} pixels; {own.source} names {own.sizes[0][0]} x {own.sizes[0][1]}"


def _range_text(view: Tensor) -> str:
    """The range of a float view that nothing has normalised; "" for any other."""
    return {1: "from 0 to 1", 255: "from 0 to 255", None: ""}[float_range(view)]


def _text(numbers: Numbers) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _of_run(weights: Path) -> OwnInput | None:
    """The input of a network that kdcache trained: by the settings beside its weights, else by their lineage."""
    path = weights.parent.parent / "settings.json"
    try:
        settings = json.loads(path.read_bytes()) if path.stat().st_size <= SETTINGS_LIMIT else None
        if isinstance(settings, dict) and "student" in settings:
            mean, std = (_numbers(settings.get(name)) for name in ("mean", "std"))
            return OwnInput(f"the settings of the run {path.parent.name}", mean, std, with_floats=True)
    except (OSError, ValueError):
        pass
    return OwnInput("its training by kdcache") if read_lineage(weights) else None


def _of_timm(network: nn.Module) -> OwnInput | None:
    cfg = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None)
    cfg = cfg if isinstance(cfg, dict) else getattr(cfg, "__dict__", {})
    sizes = [cfg.get(name) for name in ("input_size", "test_input_size")]
    return _checked("timm's pretrained_cfg", cfg.get("mean"), cfg.get("std"), [size[1:] for size in sizes if size])


def _of_torchvision(spec: str, arguments: dict[str, Any]) -> OwnInput | None:
    kind, _, name = spec.partition(":")
    if kind != "torchvision" or not arguments.get("weights"):
        return None
    kinds = torchvision.models.get_model_weights(name)
    if (member := str(arguments["weights"]).rpartition(".")[2]) not in kinds.__members__:
        return None
    weights = kinds[member]
    transforms = weights.transforms()
    size = getattr(transforms, "crop_size", None)
    sides = [size[0], size[-1]] if size else None
    mean, std = getattr(transforms, "mean", None), getattr(transforms, "std", None)
    return _checked(f"torchvision's {weights}", mean, std, [sides] if sides else [])


def _checked(source: str, mean: Any, std: Any, sizes: Any) -> OwnInput | None:
    numbers = _numbers(mean), _numbers(std)
    if not numbers[0] or len(numbers[0]) != len(numbers[1]) or min(numbers[1]) <= 0:
        return None
    return OwnInput(source, *numbers, tuple((int(height), int(width)) for height, width in sizes))


def _numbers(values: Any) -> Numbers:
    is_list = isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values)
    return tuple(float(value) for value in values) if is_list else ()
