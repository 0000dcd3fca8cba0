"""Networks by spec: torchvision, timm, transformers, or a callable of the user's own."""

import hashlib
import inspect
from typing import Any

import torchvision
from torch import nn

from kdcache.base.specs import call, is_packaged, load_callable, own_source
from kdcache.base.user_files import without_folders
from kdcache.errors import InvalidInputError
from kdcache.networks.transformers_folder import architecture_text, build_transformers, is_transformers


def build_network(spec: str, arguments: dict[str, Any], classes: int, noun: str) -> nn.Module:
    """The network of a spec: torchvision:NAME, timm:NAME, transformers:FOLDER, package.module:callable or
    file.py:callable.

    `classes`, the data set's number of them, is passed as `num_classes` where the factory takes it and the arguments
    neither set it nor ask for pretrained weights. `noun` says what the network is, teacher or student. Raises
    InvalidInputError where it cannot be built.
    """
    kind, colon, name = spec.partition(":")
    if not colon or not name:
        forms = "torchvision:NAME, timm:NAME, transformers:FOLDER, package.module:callable or file.py:callable"
        raise InvalidInputError(f"{noun} {spec!r} names no network; write {forms}")
    pretrained = bool(arguments.get("weights") or arguments.get("pretrained"))
    defaults = {} if pretrained or not classes or "num_classes" in arguments else {"num_classes": classes}
    try:
        if kind == "torchvision":
            network = torchvision.models.get_model(name, **{**defaults, **arguments})
        elif kind == "timm":
            network = _timm().create_model(name, **{**defaults, **arguments})
        elif kind == "transformers":
            network = build_transformers(spec, arguments, classes, noun)
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


def network_text(network: nn.Module, spec: str, stored: str = "") -> str:
    """A digest of a network's code: sha256 over the names of its modules' classes, and over the sources of the user's
    own classes and of the factory.

    Equal weights may meet another forward: the digest tells an edited network file from the one that answered before.
    The code of installed packages is told by its names alone, and of transformers' networks by their settings too;
    versions are provenance. `stored` is the text of
    the store that stands. Stores made before have the sources of packages in it: their text stays where it is that of
    the packages as they are now, or where the user has no code in the network, so that only a package can differ.
    """
    lines = [
        f"{name}: {type(module).__module__}.{type(module).__qualname__}" for name, module in network.named_modules()
    ]
    lines += [architecture_text(network)] if is_transformers(spec) else []
    codes = network_codes(network, spec)
    users = {own_source(code) for code in codes if not is_packaged(code)}
    packaged = {own_source(code) for code in codes if is_packaged(code)}

    def digest(sources: set[str]) -> str:
        text = "\n".join([*map(without_folders, lines), *sorted(sources)])
        return "sha256 " + hashlib.sha256(text.encode()).hexdigest()

    is_former = stored == digest(users | packaged) or (stored.startswith("sha256 ") and not any(users))
    return stored if is_former and packaged else f"own {digest(users)}" if packaged else digest(users)


def network_codes(network: nn.Module, spec: str) -> set[Any]:
    """The classes of a network's modules, and the factory that its spec names."""
    codes: set[Any] = {type(module) for module in network.modules()}
    is_named = spec.partition(":")[0] not in ("torchvision", "timm", "transformers")
    return codes | {load_callable(spec, "teacher")} if is_named else codes
