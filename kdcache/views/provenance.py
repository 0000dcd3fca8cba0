"""Provenance of a pass: the versions, device and CPU capability that a store reports."""

import importlib.metadata
import platform
from collections.abc import Iterable
from typing import Any

import torch

from kdcache.base.specs import is_packaged
from kdcache.store.manifest import Provenance

_PACKAGES = ("kdcache", "torch", "torchvision", "numpy", "pillow", "timm", "zarr", "numcodecs")


def provenance(device: str, *, decoder: str = "", data: str = "", code: Iterable[Any] = ()) -> Provenance:
    """Provenance of a pass on a device such as "cpu" or "cuda:0"; free of times, hosts and paths. `code`: functions and
    classes of the teacher, the versions of whose packages are noted too."""
    versions = {"python": platform.python_version()}
    modules = {part.__module__.partition(".")[0] for part in code if is_packaged(part)}
    packages = importlib.metadata.packages_distributions() if modules else {}
    for package in (*_PACKAGES, *sorted({name for module in modules for name in packages.get(module, ())})):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    capability = torch.backends.cpu.get_cpu_capability()
    return Provenance(versions=versions, device=name, cpu_capability=capability, decoder=decoder, data=data)


def version_differences(stored: Provenance, current: Provenance) -> list[str]:
    """Texts such as `torch 2.5 there, 2.6 here`, one for each difference between two provenances."""
    left = {**stored.versions, "CPU capability": stored.cpu_capability, "decoder": stored.decoder}
    right = {**current.versions, "CPU capability": current.cpu_capability, "decoder": current.decoder}
    return [
        f"{name} {left.get(name, 'absent')} there, {right.get(name, 'absent')} here"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]
