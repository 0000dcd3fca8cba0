"""The index of a tar shard: where each sample's image lies in it, with its key and label. It is made once and kept.

A sample is what WebDataset makes one of: consecutive members of one key, which is a name up to the first dot of its
base name. Indexes lie in the cache folder, one for each tar by its path, size and time, and are made create-only.
"""

import json
import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.errors import InvalidInputError
from kdcache.places.cache import open_cache
from kdcache.views.cache_folder import CacheFolder
from kdcache.views.image_folder import SUFFIXES
from kdcache.views.label_numbers import listed

FORMAT = 1
MEMBER = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)")  # key and extension, as webdataset's base_plus_ext has them
META = re.compile(r"__[^/]*__($|/)")  # members that webdataset skips
NUMBERS = "cls"
PACKED = (
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"BZh", "bzip2", "bunzip2"),
    (b"\xfd7zXZ", "xz", "unxz"),
    (b"\x28\xb5\x2f\xfd", "zstandard", "unzstd"),
)


@dataclass(frozen=True)
class Wanted:
    """The members that a sample is made of: the extension of its `image`, "" for its only picture, and the keys of its
    `label` and `id`. The label "cls" is the member of that extension, any other one a key of the member .json; "" is
    none."""

    image: str = ""
    label: str = NUMBERS
    id: str = ""


@dataclass(frozen=True)
class TarIndex:
    """The samples of a tar, column by column: keys, extension, offset and size of each image, label and id."""

    keys: list[str]
    extensions: list[str]
    offsets: list[int]
    sizes: list[int]
    labels: list[Any]
    ids: list[str]


class TarIndexes:
    """The kept indexes of tars, for samples made of some members. `problem`: why they are not kept, "" where they
    are."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted, self.problem = wanted, ""
        self._folder: CacheFolder | None = None
        try:
            cache = open_cache()
            key = {"format": FORMAT, **asdict(wanted)}
            if cache.limit:
                self._folder = CacheFolder(cache.folder.parent, "tars", key, cache.limit)
                self._folder.begin()
        except (InvalidInputError, OSError) as error:
            self._folder, self.problem = None, str(error)

    def of(self, path: Path) -> TarIndex:
        """The index of a tar: the one that is kept for its path, size and time, or a new one. Raises
        InvalidInputError, which names the tar."""
        status = _status(path)
        name = sha256_hex(canonical_json([str(path.absolute()), status.st_size, status.st_mtime_ns]))
        if self._folder is None:
            return read_index(path, self.wanted)
        if (index := self._kept(name)) is not None:
            return index
        index = read_index(path, self.wanted)
        data = json.dumps(asdict(index)).encode()
        self._folder.remove(name)
        self._folder.make(name, len(data), lambda descriptor: _write(descriptor, data))
        self.problem = self._folder.problem
        return index

    def _kept(self, name: str) -> TarIndex | None:
        """A kept index; None where there is none that is whole."""
        if self._folder is None or (descriptor := self._folder.open(name)) is None:
            return None
        try:
            with os.fdopen(descriptor, "rb") as file:
                index = TarIndex(**json.load(file))
            lengths = {len(column) for column in vars(index).values()}
        except (OSError, ValueError, TypeError, AttributeError):  # torn by a machine that stopped
            return None
        return index if len(lengths) == 1 else None


def read_index(path: Path, wanted: Wanted) -> TarIndex:
    """The index of a tar, from its headers and labels. Raises InvalidInputError, which names it, for one that is packed
    or cut, and for a sample that lacks a member or has several pictures."""
    size = _status(path).st_size
    index = TarIndex([], [], [], [], [], [])
    try:
        with path.open("rb") as file:
            head = file.read(6)
            for magic, kind, tool in PACKED:
                if head.startswith(magic):
                    raise InvalidInputError(
                        f"{path} is packed by {kind}: samples are read by their place in a plain tar; unpack it with "
                        f"{tool}, and name the .tar that comes of it"
                    )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for key, members in _samples(tar, path):
                    _add(index, key, members, tar, path, wanted)
                file.seek(tar.offset)
                has_end = file.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE
            last = max((o + s for o, s in zip(index.offsets, index.sizes, strict=True)), default=0)
    except tarfile.TarError as error:
        raise InvalidInputError(f"{path} is no tar that can be read ({error}); copy it again") from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read ({error.strerror or error})") from error
    if last > size or not has_end:
        raise InvalidInputError(f"{path} is cut at byte {size:,}: a whole tar ends in an empty block; copy it again")
    return index


def _samples(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Key and members by extension of each sample."""
    key, members = "", dict[str, tarfile.TarInfo]()
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # or it keeps all of them
        match = MEMBER.fullmatch(member.name)
        if not member.isreg() or META.match(member.name) or match is None:
            continue
        if member.issparse():
            raise InvalidInputError(f"{path}: {member.name} is sparse; write the tar without --sparse")
        if match[1] != key and members:
            yield key, members
            members = {}
        key, extension = match[1], match[2].lower()
        if extension in members:
            raise InvalidInputError(f"{path} has {member.name} twice in one sample; give each sample a key of its own")
        members[extension] = member
    if members:
        yield key, members


def _add(
    index: TarIndex, key: str, members: dict[str, tarfile.TarInfo], tar: tarfile.TarFile, path: Path, wanted: Wanted
) -> None:
    extension = _image_of(key, members, path, wanted.image)
    index.keys.append(key)
    index.extensions.append(extension)
    index.offsets.append(members[extension].offset_data)
    index.sizes.append(members[extension].size)
    record = defaultdict[str, Any](lambda: None)
    names = [name for name in (wanted.label, wanted.id) if name and name != NUMBERS]
    if names:
        record.update(_record(key, members, tar, path))
    if missing := [name for name in names if name not in record]:
        raise InvalidInputError(
            f"{path}: the .json of sample {key} has no {missing[0]!r}; it has {listed([*map(str, record)], most=12)}"
        )
    if wanted.label == NUMBERS:
        record[NUMBERS] = _text(members[_member(NUMBERS, key, members, path)], tar)
    index.labels.append(record[wanted.label])
    index.ids.append(str(record[wanted.id]) if wanted.id else key)


def _image_of(key: str, members: dict[str, tarfile.TarInfo], path: Path, wanted: str) -> str:
    """The extension of a sample's image."""
    if wanted:
        return _member(wanted.lower().lstrip("."), key, members, path)
    pictures = [extension for extension in members if f".{extension}".endswith(SUFFIXES)]
    if len(pictures) == 1:
        return pictures[0]
    if pictures:
        advice = f"choose one by --data-set image={pictures[0]}"
        raise InvalidInputError(f"{path}: sample {key} has {len(pictures)} pictures: {', '.join(pictures)}; {advice}")
    raise InvalidInputError(
        f"{path}: sample {key} has no picture; it has {', '.join(members)}; leave it out, or name the extension by "
        "--data-set image=EXTENSION"
    )


def _member(extension: str, key: str, members: dict[str, tarfile.TarInfo], path: Path) -> str:
    """An extension that a sample has."""
    if extension in members:
        return extension
    advice = "label=KEY takes a label from .json, --labels none uses none" if extension == NUMBERS else "give it one"
    raise InvalidInputError(f"{path}: sample {key} has no .{extension}; it has {', '.join(members)}; {advice}")


def _record(key: str, members: dict[str, tarfile.TarInfo], tar: tarfile.TarFile, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(_text(members[_member("json", key, members, path)], tar))
    except ValueError as error:
        raise InvalidInputError(f"{path}: the .json of sample {key} cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise InvalidInputError(f"{path}: the .json of sample {key} is a {type(record).__name__}, and no object")
    return record


def _text(member: tarfile.TarInfo, tar: tarfile.TarFile) -> str:
    file = tar.extractfile(member)
    return "" if file is None else file.read().decode("utf-8", "replace").strip()


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read ({error.strerror})") from error


def _write(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
