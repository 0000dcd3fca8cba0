"""Seals, which one team names to another: create-only lists of segment digests, whose sha256 is the content id."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import FailFast, model_validator

from kdcache.base.arrays import values_digest
from kdcache.base.canonical import sha256_hex
from kdcache.base.limits import LATEST_LIMIT, SEAL_LIMIT
from kdcache.base.records import Record
from kdcache.errors import DamagedError, MissingBlockError, StoreNotFoundError
from kdcache.places.place import Place, is_url
from kdcache.store.commits import Commit, commits_bytes
from kdcache.store.layout import LATEST_SEAL, SegmentLayout, seal_key, segment_digest
from kdcache.store.manifest import Identity
from kdcache.store.partial import read_partial, replace_partial
from kdcache.store.sealed_segment import Digest, SealedSegment
from kdcache.store.segment_layout import segment_layout
from kdcache.store.whole_arrays import head_digest, read_head

NAME = re.compile(r"[0-9a-f]{32}\.json")
PIN = 32  # hex digits of a content id that always name one seal
HEX = set("0123456789abcdef")
SHOWN = 20  # seals that a message lists


class Seal(Record):
    """A seal: a create-only list of digests. The sha256 of its bytes is the content id."""

    format: Literal[1]
    identity: Digest
    order: Digest
    labels: Digest
    head: Digest | None = None
    segments: Annotated[tuple[SealedSegment, ...], FailFast()]

    @model_validator(mode="after")
    def _check_views(self) -> Self:
        for views, next_views in pairwise(sorted(segment.views for segment in self.segments)):
            if views.overlaps(next_views):
                raise ValueError(f"segments of views {views} and {next_views} overlap")
        return self

    @property
    def content_id(self) -> str:
        return sha256_hex(self.to_bytes())


def split_pin(url: str) -> tuple[str, str | None]:
    """Path and content id of `store.kd@1f2e...`, in either case. An `@` that is part of an existing path stays."""
    path, at, content_id = url.rpartition("@")
    content_id = content_id.lower()
    if not at or not content_id or set(content_id) - HEX:
        return url, None
    if path.count("/") < 3 if is_url(url) else os.path.exists(url):  # https://user@host
        return url, None
    return path, content_id


def read_seal(folder: Place, identity: Identity, content_id: str | None) -> Seal | None:
    """The seal that a content id names, the latest where it is None; None where there is no seal at all.

    Raises StoreNotFoundError for an unknown id, DamagedError for a seal that differs from its name or the manifest, and
    FormatError for fields that no seal has.
    """
    if content_id is None:
        content_id = _latest_id(folder)
        if content_id is None:
            return None
    elif len(content_id) < PIN:
        content_id = _complete_id(folder, content_id)
    key = seal_key(content_id)
    data = folder.get(key, limit=SEAL_LIMIT)
    if data is None:
        names = (
            (", ".join(sealed_ids(folder)[:SHOWN]) or "none") if folder.lists else _latest_id(folder) or "no latest one"
        )
        raise StoreNotFoundError(f"{folder.root} has no seal {content_id}; it has {names}")
    if not sha256_hex(data).startswith(content_id):
        raise DamagedError(
            f"{folder.path(key)} has sha256 {sha256_hex(data)}, its content id is {content_id}; restore it"
        )
    seal = Seal.from_bytes(data, str(folder.path(key)))
    if seal.to_bytes() != data:
        raise DamagedError(
            f"{folder.path(key)} is not in canonical form; it was not written by kdcache: fetch it again"
        )
    if seal.identity != (digest := identity.digest):
        raise DamagedError(f"{folder.path(key)} seals identity {seal.identity}, the manifest's is {digest}")
    if seal.order != identity.order.sha256:
        raise DamagedError(f"{folder.path(key)} seals order {seal.order}, the manifest's is {identity.order.sha256}")
    for entry in seal.segments:
        layout = segment_layout(identity, entry.views)
        if segment_digest(layout, seal.identity, entry.commits) != entry.digest:
            raise DamagedError(f"{folder.path(key)}: the digest of {layout.name} does not follow; restore it")
    return seal


def _latest_id(folder: Place) -> str | None:
    """The content id of the latest seal. Raises DamagedError where the file holds something else."""
    latest = folder.get(LATEST_SEAL, limit=LATEST_LIMIT)
    if latest is None:
        return None
    content_id = latest.decode("ascii", "replace").strip()
    if len(content_id) != 64 or set(content_id) - HEX:
        problem = f"{folder.path(LATEST_SEAL)} holds {content_id[:80]!r}, which is not a content id"
        raise DamagedError(f"{problem}; restore it, or open the store by a pin: {folder.root}@<content id>")
    return content_id


def sealed_ids(folder: Place) -> list[str]:
    """The first 32 hex digits of the content id of every seal, by listing."""
    return seal_names(key.rsplit("/", 1)[-1] for key in folder.keys("kdcache/seals"))


def seal_names(files: Iterable[str]) -> list[str]:
    """The first 32 hex digits of the content id of every seal, from the names of files that lie beside the seals."""
    return [name.removesuffix(".json") for name in files if NAME.fullmatch(name)]


def _complete_id(folder: Place, prefix: str) -> str:
    if not folder.lists:
        problem = f"{folder.root} cannot be listed, and {prefix} has {len(prefix)} digits"
        raise StoreNotFoundError(f"{problem}; give {PIN} or more of the content id, or none for the latest seal")
    matches = [content_id for content_id in sealed_ids(folder) if content_id.startswith(prefix)]
    if len(matches) != 1:
        names = ", ".join(matches[:SHOWN]) or "none"
        raise StoreNotFoundError(f"{folder.root}: {prefix} names {len(matches)} seals ({names}); give more digits")
    return matches[0]


def write_seal(
    folder: Place,
    identity: Identity,
    labels: npt.NDArray[np.int64],
    segments: Sequence[tuple[SegmentLayout, Mapping[int, Commit], Set[str]]],
) -> Seal:
    """Write the seal of some segments, each with its commits and the arrays that this copy was made without, and make
    it the latest one. `labels` [N] by position.

    Raises MissingBlockError where a block has no commit."""
    absent: dict[SealedSegment, set[str]] = {}
    for layout, commits, left_out in segments:
        data = commits_bytes(commits, layout)
        digest = sha256_hex(data)
        folder.put_same(layout.commits_file(digest), data)
        entry = SealedSegment(
            views=layout.views, commits=digest, digest=segment_digest(layout, identity.digest, digest)
        )
        absent[entry] = _absent_arrays(folder, layout, left_out)
    if not absent:
        raise MissingBlockError(f"{folder.root} has no segment to seal; run kdcache extract")
    seal = Seal(
        format=identity.format,
        identity=identity.digest,
        order=identity.order.sha256,
        labels=values_digest(labels.astype(np.int32)),
        head=head_digest(read_head(folder, identity)) if identity.encoding.head else None,
        segments=tuple(absent),
    )
    folder.put_same(seal_key(seal.content_id), seal.to_bytes())
    record = read_partial(folder)
    replace_partial(folder, record, record.after_seal(absent))  # what is here now is shown again
    folder.replace(LATEST_SEAL, seal.content_id.encode() + b"\n")
    return seal


def _absent_arrays(folder: Place, layout: SegmentLayout, arrays: Set[str]) -> set[str]:
    """Those of the arrays that a copy of a segment was made without which are not there whole by now."""
    absent = set()
    for name in arrays:
        spec = layout.arrays[name]
        keys = (f"{spec.path}/zarr.json", *map(spec.key, range(layout.blocks)))
        absent |= {name} if any(folder.size(key) is None for key in keys) else set()
    return absent
