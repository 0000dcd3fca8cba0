"""A network's own input: the mean, std and size that its weights were trained with, and the choice of those it is fed.

timm's networks carry them as `pretrained_cfg`, and a network of one's own may; torchvision's weights as `transforms()`,
folders of transformers in their image processor. Weights of a training by kdcache were fed as the run's settings say. A
timm network built without `pretrained` has its configuration too, and is fed by it: its weights come from timm's file,
or from a training that takes the configuration by default.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kdcache.networks.input_sources import Numbers, OwnInput, numbers_of, of_config, of_spec
from kdcache.networks.preparation import default_normalisation, float_range, normalisation
from kdcache.store.lineage import read_lineage
from kdcache.store.manifest import TeacherIdentity

SETTINGS_LIMIT = 2**22  # bytes of a run's settings


@dataclass(frozen=True)
class Feeding:
    """The mean and std by which a teacher's views become its input, and notes on their choice."""

    mean: Numbers
    std: Numbers
    notes: tuple[str, ...] = ()


def own_input(network: nn.Module, spec: str, arguments: dict[str, Any], weights: str) -> OwnInput | None:
    """The input that a network of a spec wants, with weights of a file where that is not empty; None: nobody knows."""
    if weights and (own := _of_run(Path(weights))) is not None:
        return own
    if (config := getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None)) is not None:
        owner = "timm" if spec.startswith("timm:") else "the network"
        return of_config(config, f"{owner}'s pretrained_cfg", arguments)
    return of_spec(spec, arguments, weights=bool(weights))


def known_input(spec: str, arguments: dict[str, Any], weights: str) -> OwnInput | None:
    """The input that a network of a spec wants, as far as it is known before it is built."""
    is_of_run = bool(weights) and _of_run(Path(weights)) is not None
    return None if is_of_run else of_spec(spec, arguments, weights=bool(weights))


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
            mean, std = (numbers_of(settings.get(name)) for name in ("mean", "std"))
            return OwnInput(f"the settings of the run {path.parent.name}", mean, std, with_floats=True)
    except (OSError, ValueError):
        pass
    return OwnInput("its training by kdcache") if read_lineage(weights) else None
