"""Lineage: the stores that taught a network, the stores that taught their teachers, and so on.

A record travels in the metadata of a safetensors file under `kdcache.lineage` (one key: safetensors writes several in
random order) and in the provenance of a store's manifest under `lineage`. Strangers may have written either, so the
record is bounded in bytes, depth and form. That of a weights file holds class names too. In a weights file any other
record is refused. In a manifest, whose provenance is reported and never refused, it counts as absent: then the
identity's parents stand alone. A lineage in a manifest explains these parents, and adds only unsealed stores.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open

from kdcache.base.limits import SUBCLASSES_MAX
from kdcache.base.records import Record, validated
from kdcache.base.weights_path import begins_as_safetensors, split_weights
from kdcache.errors import InvalidInputError
from kdcache.store.manifest import Identity, Manifest, Provenance

KEY = "kdcache.lineage"
FORMAT = 1
BYTES, DEPTH, ENTRIES = 2**22, 16, 1000  # an entry has at most 1,400 bytes
NAMES_BYTES = 2**21  # of a network's class names; longer lists are left out
ADVICE = "save the weights again without it, and name the parents with --parents"
CONTENT_ID = re.compile(r"[0-9a-f]{64}")


class Ancestor(Record):
    """A store that taught a network, and the stores that taught its teacher.

    `content_id` is None where it was not sealed; `identity` (a digest) and `teacher` are None where its id alone is
    known.
    """

    content_id: str | None = None
    identity: str | None = None
    teacher: str | None = Field(default=None, max_length=300)
    parents: "tuple[Ancestor, ...]" = ()


class SavedNetwork(Record):
    """The network of a weights file whose objective put parts of its own around the student: kdcache's own factory, and
    its arguments but those that name the student."""

    name: Literal["kdcache.networks:simkd"]
    arguments: dict[str, str | int]


class Lineage(Record):
    """The lineage in a weights file, the names of the classes that its network answers, where they have names, the
    network where it is not the student as the run's settings name it, and how many logits it answers for each class."""

    format: Literal[1] = 1
    stores: tuple[Ancestor, ...]
    class_names: tuple[str, ...] = ()
    network: SavedNetwork | None = None
    subclasses: int = Field(default=1, ge=1, le=SUBCLASSES_MAX, strict=True)

    LATER: ClassVar[tuple[str, ...]] = ("class_names", "network", "subclasses")


class Described(Protocol):
    """What lineage asks of a store."""

    @property
    def content_id(self) -> str | None:
        """The id of its seal, None without one."""

    @property
    def identity(self) -> Identity:
        """Its manifest's identity."""

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""


def lineage_of(stores: Sequence[Described]) -> tuple[Ancestor, ...]:
    """The lineage of a network that learns from `stores`: each store with the chain behind it.

    It is cut below the generation that would exceed 16 generations or 1,000 entries: the nearest stay.
    """
    return _bound(
        tuple(
            Ancestor(
                content_id=store.content_id,
                identity=store.identity.digest,
                teacher=_printable_name(store.identity.teacher.name),
                parents=tuple(parent for parent in chain_of(store) if _is_well_named(parent)),
            )
            for store in stores
        )
    )


def chain_of(store: Described) -> tuple[Ancestor, ...]:
    """The stores that taught a store's teacher: the parents of its identity, in full where the provenance has their
    lineage, then the stores of that lineage that were not sealed."""
    try:
        record = (store.manifest.provenance.model_extra or {}).get("lineage", [])
        ancestors = parse_ancestors(record, "provenance.lineage")
    except InvalidInputError:
        ancestors = ()
    by_id = {ancestor.content_id: ancestor for ancestor in ancestors}
    parents = tuple(by_id.get(parent) or Ancestor(content_id=parent) for parent in store.identity.parents)
    return parents + tuple(ancestor for ancestor in ancestors if ancestor.content_id is None)


def weights_metadata(
    stores: Sequence[Described],
    *,
    start: str | Path = "",
    class_names: Sequence[str] = (),
    network: SavedNetwork | None = None,
    subclasses: int = 1,
) -> dict[str, str]:
    """Metadata of a weights file: the lineage of its network, the names of its classes, the network where the student
    alone does not tell it, and its subclasses; empty without all.

    `start` is the weights file that training began from, if any: its lineage is the network's too.
    """
    ancestors = lineage_of(stores)
    ancestors += tuple(ancestor for ancestor in (read_lineage(start) if start else ()) if ancestor not in ancestors)
    names = tuple(class_names) if _are_written(class_names) else ()
    lineage = Lineage(stores=_bound(ancestors), class_names=names, network=network, subclasses=subclasses)
    return {} if lineage == Lineage(stores=()) else {KEY: lineage.to_bytes().decode()}


def read_lineage(path: str | Path) -> tuple[Ancestor, ...]:
    """The lineage of the network in a weights file; empty where it is no safetensors file or has no such record.

    Raises InvalidInputError, naming the file and what is wrong, for a record that kdcache did not write.
    """
    return _read(path).stores


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The names of the classes that the network in a weights file answers; empty, and raises, as `read_lineage`."""
    return _read(path).class_names


def read_network(path: str | Path) -> SavedNetwork | None:
    """The network of a weights file where the student alone does not tell it; raises as `read_lineage`."""
    return _read(path).network


def read_subclasses(path: str | Path) -> int:
    """The number of logits that the network of a weights file answers for each class; raises as `read_lineage`."""
    return _read(path).subclasses


def _read(path: str | Path) -> Lineage:
    text, (file_path, _) = None, split_weights(path)
    try:
        if begins_as_safetensors(file_path):
            with safe_open(file_path, framework="numpy") as file:
                text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise InvalidInputError(f"weights {path} cannot be read: {error}") from error
    return Lineage(stores=()) if text is None else _parse_text(text, f"the lineage in weights {path}")


def _are_written(class_names: Sequence[str]) -> bool:
    """True for names that a weights file can hold: Unicode, and not too long a list."""
    try:
        return len("".join(class_names).encode()) + 8 * len(class_names) <= NAMES_BYTES
    except UnicodeEncodeError:  # of a folder whose name is not UTF-8
        return False


def open_lineage(weights: str, parents: Sequence[str]) -> tuple[tuple[str, ...], tuple[Ancestor, ...]]:
    """The parents of a new store's identity (content ids, sorted, each once), and the lineage behind them.

    The sealed stores of the lineage in `weights` join the `parents` that the user names. Raises InvalidInputError for
    a parent that is no content id.
    """
    for parent in parents:
        if not CONTENT_ID.fullmatch(parent):
            raise InvalidInputError(
                f"parent {parent!r} is no content id of 64 hex digits; kdcache inspect shows that of a sealed store"
            )
    ancestors = read_lineage(weights) if weights else ()
    content_ids = {ancestor.content_id for ancestor in ancestors if ancestor.content_id is not None}
    return tuple(sorted(content_ids | set(parents))), ancestors


def with_lineage(provenance: Provenance, ancestors: Sequence[Ancestor]) -> Provenance:
    """The provenance of a manifest, with the lineage of the store's teacher where there is one."""
    if not ancestors:
        return provenance
    return provenance.model_copy(update={"lineage": [ancestor.model_dump(mode="json") for ancestor in ancestors]})


def parse_ancestors(record: Any, name: str) -> tuple[Ancestor, ...]:
    """Ancestors from parsed JSON. Raises InvalidInputError, naming `name`, for a record of another form."""
    entries = 0
    for depth, generation in enumerate(_raw_levels(record), start=1):
        entries += len(generation)
        if depth > DEPTH or entries > ENTRIES:
            limits = f"at most {DEPTH} generations and {ENTRIES} stores"
            raise InvalidInputError(f"{name} has more than {limits}: kdcache writes {limits}; {ADVICE}")
    try:
        ancestors = Lineage.model_validate({"stores": record}).stores
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInputError(f"{name} is not of kdcache's form: {field}: {first['msg']}; {ADVICE}") from error
    for level in _levels(ancestors):
        if strangers := [ancestor for ancestor in level if not _is_well_named(ancestor)]:
            names = f"{strangers[0].content_id!r:.80}, {strangers[0].identity!r:.80}, {strangers[0].teacher!r:.80}"
            form = "a content id and an identity have 64 hex digits, a teacher's name is printable"
            raise InvalidInputError(f"{name} names a store by {names}; {form}; {ADVICE}")
    return ancestors


def _parse_text(text: str, name: str) -> Lineage:
    if (size := len(text.encode())) > BYTES:
        raise InvalidInputError(f"{name} has {size} bytes; kdcache writes at most {BYTES}; {ADVICE}")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} is not JSON ({error}); {ADVICE}") from error
    number = record.get("format") if isinstance(record, dict) else None
    if isinstance(number, int) and number > FORMAT:
        raise InvalidInputError(f"{name} is of format {number}; this kdcache reads {FORMAT}: upgrade kdcache")
    keys = record.keys() - set(Lineage.LATER) if isinstance(record, dict) else ()
    if not isinstance(record, dict) or keys != {"format", "stores"} or number != FORMAT:
        raise InvalidInputError(f"{name} is no record of format {FORMAT} and stores; {ADVICE}")
    network = None if record.get("network") is None else validated(SavedNetwork, name, **_dict(record["network"], name))
    stores, count = parse_ancestors(record["stores"], name), record.get("subclasses", 1)
    if type(count) is not int or not 1 <= count <= SUBCLASSES_MAX:
        raise InvalidInputError(f"{name} has subclasses that are no number from 1 to {SUBCLASSES_MAX}; {ADVICE}")
    return Lineage(stores=stores, class_names=_names(record, name), network=network, subclasses=count)


def _dict(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{name} has a network that is no record; {ADVICE}")
    return value


def _names(record: dict[str, Any], name: str) -> tuple[str, ...]:
    names = record.get("class_names", [])
    if not isinstance(names, list) or not all(isinstance(text, str) for text in names) or not _are_written(names):
        raise InvalidInputError(f"{name} has class names that are no list of texts; {ADVICE}")
    return tuple(names)


def _raw_levels(record: Any) -> Iterator[list[Any]]:
    """The generations of a record that may hold anything, nearest first, without recursion."""
    level = record if isinstance(record, list) else [record]
    while level:
        yield level
        lists = [entry.get("parents") for entry in level if isinstance(entry, dict)]
        level = [parent for parents in lists if isinstance(parents, list) for parent in parents]


def _levels(ancestors: Sequence[Ancestor]) -> Iterator[Sequence[Ancestor]]:
    level: Sequence[Ancestor] = ancestors
    while level:
        yield level
        level = [parent for ancestor in level for parent in ancestor.parents]


def _is_well_named(ancestor: Ancestor) -> bool:
    names = [name for name in (ancestor.content_id, ancestor.identity) if name is not None]
    return bool(names) and all(map(CONTENT_ID.fullmatch, names)) and (ancestor.teacher or "").isprintable()


def _printable_name(name: str) -> str:
    """A name as a lineage may hold it: no control characters, no lone surrogates, at most 300 characters."""
    return "".join(character if character.isprintable() else "?" for character in name[:300])


def _bound(ancestors: tuple[Ancestor, ...]) -> tuple[Ancestor, ...]:
    depth, entries = 0, 0
    for level in _levels(ancestors):
        entries += len(level)
        if depth == DEPTH or entries > ENTRIES:
            break
        depth += 1
    return _cut(ancestors, max(depth, 1))


def _cut(ancestors: tuple[Ancestor, ...], depth: int) -> tuple[Ancestor, ...]:
    """The first `depth` generations."""
    if depth == 0:
        return ()
    return tuple(ancestor.model_copy(update={"parents": _cut(ancestor.parents, depth - 1)}) for ancestor in ancestors)
