"""Networks by spec: torchvision, timm, or a callable of the user's own."""

import hashlib
import inspect
from typing import Any

import torchvision
from torch import nn

from kdcache.base.specs import call, load_callable, own_source
from kdcache.base.user_files import without_folders
from kdcache.errors import InvalidInputError


def build_network(spec: str, arguments: dict[str, Any], classes: int, noun: str) -> nn.Module:
    """The network of a spec: torchvision:NAME, timm:NAME, package.module:callable or file.py:callable.

    `classes`, the data set's number of them, is passed as `num_classes` where the factory takes it and the arguments
    neither set it nor ask for pretrained weights. `noun` names the network in messages: teacher or student. Raises
    InvalidInputError where it cannot be built.
    """
    kind, colon, name = spec.partition(":")
    if not colon or not name:
        forms = "torchvision:NAME, timm:NAME, package.module:callable or file.py:callable"
        raise InvalidInputError(f"{noun} {spec!r} names no network; write {forms}")
    pretrained = bool(arguments.get("weights") or arguments.get("pretrained"))
    defaults = {} if pretrained or not classes or "num_classes" in arguments else {"num_classes": classes}
    try:
        if kind == "torchvision":
            network = torchvision.models.get_model(name, **{**defaults, **arguments})
        elif kind == "timm":
            network = _timm().create_model(name, **{**defaults, **arguments})
        else:
            factory = load_callable(spec, noun)
            if "num_classes" not in inspect.signature(factory).parameters:
                defaults = {}
            network = call(factory, {**defaults, **arguments}, f"{noun} {spec}")
    except (ValueError, TypeError, RuntimeError, OSError, KeyError) as error:
        advice = "check its name and arguments; where weights cannot be fetched, give them with --weights FILE"
        raise InvalidInputError(f"{noun} {spec} with {arguments} cannot be built: {error}; {advice}") from error
    if not isinstance(network, nn.Module):
        raise InvalidInputError(f"{noun} {spec} returned a {type(network).__name__}; it must return a torch.nn.Module")
    return network


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise InvalidInputError("timm is not installed; pip install 'kdcache[timm]'") from error
    return timm


def network_text(network: nn.Module, spec: str) -> str:
    """A digest of a network's code: sha256 over the names of its modules' classes, and over the sources of the user's
    own classes and of the factory.

    Equal weights may meet another forward: the digest tells an edited network file from the one that answered before.
    """
    lines = [
        f"{name}: {type(module).__module__}.{type(module).__qualname__}" for name, module in network.named_modules()
    ]
    sources = {own_source(type(module)) for module in network.modules()}
    if spec.partition(":")[0] not in ("torchvision", "timm"):
        sources.add(own_source(load_callable(spec, "teacher")))
    text = "\n".join([*map(without_folders, lines), *sorted(sources)])
    return "sha256 " + hashlib.sha256(text.encode()).hexdigest()
