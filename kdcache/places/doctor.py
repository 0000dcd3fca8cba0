"""A machine and a folder are probed: versions, device, and the properties by which a store survives a crash."""

import importlib.metadata
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from kdcache.base.records import Record
from kdcache.errors import InvalidInputError, KdcacheError
from kdcache.places.create_only import rename_no_replace, write_temporary
from kdcache.places.folder import Folder

PACKAGES = (
    "kdcache", "numpy", "zarr", "numcodecs", "google-crc32c", "pydantic", "pillow", "torch", "torchvision", "timm",
)  # fmt: skip
ROOM = 64 * 2**20  # bytes: one shard


class Probe(Record):
    """The result of one probe. `needed` is true where writing a store requires that it passed."""

    name: str
    passed: bool
    detail: str
    needed: bool = False


def probe_versions() -> list[Probe]:
    """Python, the system and the packages that results depend on, by their metadata: nothing is imported."""
    probes = [Probe(name="python", passed=True, detail=f"{platform.python_version()} on {platform.platform()}")]
    for package in PACKAGES:
        try:
            probes.append(Probe(name=package, passed=True, detail=importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            probes.append(Probe(name=package, passed=False, detail="not installed"))
    return probes


def probe_device() -> Probe:
    """The accelerator that torch sees. Imports torch, which takes seconds; without torch it says so."""
    try:
        import torch
    except ImportError as error:
        return Probe(name="device", passed=False, detail=f"torch cannot be imported ({error}); stores can be inspected")
    if not torch.accelerator.is_available():
        capability = torch.backends.cpu.get_cpu_capability()
        return Probe(name="device", passed=True, detail=f"cpu, {capability}, {torch.get_num_threads()} threads")
    device = torch.accelerator.current_accelerator()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else str(device)
    return Probe(name="device", passed=True, detail=f"{device}, {name}, {torch.accelerator.device_count()} in all")


def probe_folder(path: str | os.PathLike[str]) -> list[Probe]:
    """Try out the properties of a folder that writing a store relies on, in a new folder there, removed again.

    Raises InvalidInputError where `path` is no folder.
    """
    root = Path(path)
    if not root.is_dir():
        raise InvalidInputError(f"{root} is no folder; name the folder in which stores are to lie")
    place = root / f".kdcache-doctor-{uuid.uuid4().hex[:12]}"
    try:
        place.mkdir()
    except OSError as error:
        detail = f"no ({error.strerror}); stores that lie here can be read, none can be written"
        return [Probe(name="writable", passed=False, detail=detail, needed=True)]
    try:
        return [_probe(name, check, needed, place) for name, (check, needed) in CHECKS.items()]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _probe(name: str, check: Callable[[Path], str], needed: bool, place: Path) -> Probe:
    """Run one check. It returns its observation; the text of an error that it raises is why it failed."""
    try:
        return Probe(name=name, passed=True, detail=check(place), needed=needed)
    except (OSError, KdcacheError, _MissingError) as error:
        return Probe(name=name, passed=False, detail=str(error), needed=needed)


class _MissingError(Exception):
    """A property that a folder does not have."""


def _create_only(place: Path) -> str:
    folder = Folder(place)
    if not folder.put_new("new/key", b"first") or folder.put_new("new/key", b"second"):
        raise _MissingError("a name was created twice; two writers would overwrite each other")
    if folder.get("new/key") != b"first":
        raise _MissingError("a second writer replaced what the first had written")
    return "a second writer is refused"


def _in_folder(place: Path, step: Callable[[int, str], bool]) -> bool:
    """True where `step` gives a new file its name, and then refuses to give that name to a second file."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        first = step(descriptor, write_temporary(descriptor, b"first"))
        return first and not step(descriptor, write_temporary(descriptor, b"second"))
    finally:
        os.close(descriptor)


def _hard_links(place: Path) -> str:
    (place / "linked").write_bytes(b"")
    os.link(place / "linked", place / "link")
    return "yes"


def _rename(place: Path) -> str:
    if not _in_folder(place, lambda folder, new: rename_no_replace(folder, new, "renamed")):
        raise _MissingError("a rename that should refuse replaced a file")
    return "yes: a store could be written without hard links too"


def _replace(place: Path) -> str:
    folder = Folder(place)
    folder.replace("replaced", b"old")
    with open(place / "replaced", "rb") as file:
        folder.replace("replaced", b"new")
        if file.read() != b"old" or folder.get("replaced") != b"new":
            raise _MissingError("a reader saw a file change under its hands")
    return "readers see the old or the new contents"


def _synchronise(place: Path) -> str:
    began = time.perf_counter()
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_temporary(descriptor, bytes(4096))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return f"a file and its folder in {1000 * (time.perf_counter() - began):.1f} ms"


def _space(place: Path) -> str:
    free = shutil.disk_usage(place).free
    if free < ROOM:
        raise _MissingError(f"{free:,} bytes are free, a shard may take {ROOM:,}")
    return f"{free:,} bytes are free"


def _case(place: Path) -> str:
    (place / "case").write_bytes(b"")
    return "names that differ in case alone are one" if (place / "CASE").exists() else "case matters"


def _links(place: Path) -> str:
    (place / "symbolic").symlink_to(place)
    return "can be made; kdcache follows none inside a store"


CHECKS: dict[str, tuple[Callable[[Path], str], bool]] = {
    "create-only": (_create_only, True),
    "atomic replace": (_replace, True),
    "fsync": (_synchronise, True),
    "free space": (_space, True),
    "hard links": (_hard_links, False),
    "rename that refuses": (_rename, False),
    "case of names": (_case, False),
    "symbolic links": (_links, False),
}
