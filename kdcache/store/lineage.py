"""Lineage: which stores taught a network, who taught their teachers, and so on; carried in weights and manifests.

A record travels in the metadata of a safetensors file under `kdcache.lineage` (one key: safetensors writes several in
random order) and in the provenance of a store's manifest under `lineage`. Both come from others: what is read is
bounded in bytes, depth and form. In a weights file anything else is refused; in a manifest, whose provenance is
reported and never refused, it counts as absent, and the identity's parents stand alone. There it explains parents and
adds none but stores that were not sealed.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open

from kdcache.base.canonical import canonical_json
from kdcache.base.records import Record
from kdcache.errors import InvalidInputError
from kdcache.labels.encoding import Encoding
from kdcache.store.manifest import Provenance
from kdcache.store.store import Store

KEY = "kdcache.lineage"
FORMAT = 1
BYTES, DEPTH, ENTRIES = 2**21, 16, 1000  # an entry has at most 1,400 bytes
RECODED = "recoded"  # in the provenance of a manifest: what a store was recoded from
ORIGINS = 16  # recodings that are told
SHOWN = 16  # digits of an id that people see
ADVICE = "save the weights again without it, and name the parents with --parents"
CONTENT_ID = re.compile(r"[0-9a-f]{64}")


class Ancestor(Record):
    """A store that taught: content id (None: not sealed), identity digest and teacher (None: known by its id alone),
    and the stores that taught its teacher."""

    content_id: str | None = None
    identity: str | None = None
    teacher: str | None = Field(default=None, max_length=300)
    parents: "tuple[Ancestor, ...]" = ()


class Lineage(Record):
    """What a weights file carries."""

    format: Literal[1] = 1
    stores: tuple[Ancestor, ...]


def lineage_of(stores: Sequence[Store]) -> tuple[Ancestor, ...]:
    """What a network that learns from `stores` should remember of them: each store with the chain behind it.

    Cut below the generation at which it would exceed 16 generations or 1,000 entries: the nearest stay.
    """
    return _bounded(
        tuple(
            Ancestor(
                content_id=store.content_id,
                identity=store.identity.digest,
                teacher=_printable(store.identity.teacher.name),
                parents=tuple(each for each in chain_of(store) if _well_named(each)),
            )
            for store in stores
        )
    )


def chain_of(store: Store) -> tuple[Ancestor, ...]:
    """The parents of a store's teacher: every id of its identity, told in full where the provenance has its lineage,
    then the stores of the lineage that were not sealed."""
    try:
        told = parse_ancestors((store.manifest.provenance.model_extra or {}).get("lineage", []), "provenance.lineage")
    except InvalidInputError:
        told = ()
    known = {each.content_id: each for each in told}
    sealed = tuple(known.get(each) or Ancestor(content_id=each) for each in store.identity.parents)
    return sealed + tuple(each for each in told if each.content_id is None)


def weights_metadata(stores: Sequence[Store], *, start: str | Path = "") -> dict[str, str]:
    """Metadata for `checkpoints.save_weights`: who taught the network. Empty where nobody did.

    `start` is the weights file that training began from, if any: a network that was taught before stays taught.
    """
    earlier = read_lineage(start) if start else ()
    own = lineage_of(stores)
    ancestors = own + tuple(each for each in earlier if each not in own)
    if not ancestors:
        return {}
    return {KEY: canonical_json(Lineage(stores=_bounded(ancestors)).model_dump(mode="json")).decode()}


def read_lineage(path: str | Path) -> tuple[Ancestor, ...]:
    """Who taught the network of a weights file; nobody that is known where it is no safetensors file or names none.

    Raises InvalidInputError, naming the file and what is wrong, for a record that is not ours.
    """
    if Path(path).suffix != ".safetensors":
        return ()
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise InvalidInputError(f"weights {path} cannot be read: {error}") from error
    return () if text is None else _parse_text(text, f"the lineage in weights {path}")


def open_lineage(weights: str, parents: Sequence[str]) -> tuple[tuple[str, ...], tuple[Ancestor, ...]]:
    """From extract's settings: the identity's parents (content ids, sorted, each once) and the lineage behind them.

    The sealed stores of the weights' lineage join the `parents` that were given by hand. Raises InvalidInputError for
    a parent that is no content id.
    """
    for parent in parents:
        if not CONTENT_ID.fullmatch(parent):
            raise InvalidInputError(
                f"parent {parent!r} is no content id of 64 hex digits; kdcache inspect shows that of a sealed store"
            )
    ancestors = read_lineage(weights) if weights else ()
    sealed = {each.content_id for each in ancestors if each.content_id is not None}
    return tuple(sorted(sealed | set(parents))), ancestors


def with_lineage(provenance: Provenance, ancestors: Sequence[Ancestor]) -> Provenance:
    """The provenance of a manifest, with the lineage of the store's teacher where there is one."""
    if not ancestors:
        return provenance
    return provenance.model_copy(update={"lineage": [each.model_dump(mode="json") for each in ancestors]})


class Origin(Record):
    """A store that another was recoded from: its content id and its encoding."""

    content_id: str = Field(pattern=r"^[0-9a-f]{64}$")
    encoding: Encoding


def recoded_from(provenance: Provenance) -> tuple[Origin, ...]:
    """What a store was recoded from, the nearest first; nothing where the provenance says what we do not write, for it
    is reported and never refused."""
    found = (provenance.model_extra or {}).get(RECODED, [])
    try:
        return tuple(Origin.model_validate(each) for each in found[:ORIGINS]) if isinstance(found, list) else ()
    except ValidationError:
        return ()


def unsealed_notes(ancestors: Sequence[Ancestor]) -> list[str]:
    """What a user should know: parents that cannot be named by a content id."""
    return [
        f"this teacher was taught by a store that was not sealed (identity {(each.identity or '')[:SHOWN]}, teacher "
        f"{each.teacher}): it is not among the parents; seal it and name its content id with --parents"
        for each in ancestors
        if each.content_id is None
    ]


def render(ancestor: Ancestor) -> str:
    """One chain as a line: `1f2e3d4c5b6a7988 (net.py:small) <- 77aa... (torchvision:resnet50)`; several parents in
    brackets."""
    name = ancestor.content_id[:SHOWN] if ancestor.content_id is not None else "not sealed"
    if ancestor.content_id is None and ancestor.identity is not None:
        name += f", identity {ancestor.identity[:SHOWN]}"
    own = name + (f" ({ancestor.teacher})" if ancestor.teacher else "")
    behind = [render(each) for each in ancestor.parents]
    if not behind:
        return own
    return f"{own} <- " + (behind[0] if len(behind) == 1 else f"[{'; '.join(behind)}]")


def parse_ancestors(record: Any, name: str) -> tuple[Ancestor, ...]:
    """Ancestors from parsed JSON. Raises InvalidInputError, naming `name`, where they are not what we write."""
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
        if odd := [each for each in level if not _well_named(each)]:
            given = f"{odd[0].content_id!r:.80}, {odd[0].identity!r:.80}, {odd[0].teacher!r:.80}"
            form = "a content id and an identity have 64 hex digits, a teacher's name is printable"
            raise InvalidInputError(f"{name} names a store by {given}; {form}; {ADVICE}")
    return ancestors


def _parse_text(text: str, name: str) -> tuple[Ancestor, ...]:
    if (size := len(text.encode())) > BYTES:
        raise InvalidInputError(f"{name} has {size} bytes; kdcache writes at most {BYTES}; {ADVICE}")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} is not JSON ({error}); {ADVICE}") from error
    number = record.get("format") if isinstance(record, dict) else None
    if isinstance(number, int) and number > FORMAT:
        raise InvalidInputError(f"{name} is of format {number}; this kdcache reads {FORMAT}: upgrade kdcache")
    if not isinstance(record, dict) or record.keys() != {"format", "stores"} or number != FORMAT:
        raise InvalidInputError(f"{name} is no record of format {FORMAT} and stores; {ADVICE}")
    return parse_ancestors(record["stores"], name)


def _raw_levels(record: Any) -> Iterator[list[Any]]:
    """The generations of a record that may hold anything, without recursion."""
    level = record if isinstance(record, list) else [record]
    while level:
        yield level
        lists = [each.get("parents") for each in level if isinstance(each, dict)]
        level = [parent for parents in lists if isinstance(parents, list) for parent in parents]


def _levels(ancestors: Sequence[Ancestor]) -> Iterator[Sequence[Ancestor]]:
    level: Sequence[Ancestor] = ancestors
    while level:
        yield level
        level = [parent for each in level for parent in each.parents]


def _well_named(ancestor: Ancestor) -> bool:
    names = [name for name in (ancestor.content_id, ancestor.identity) if name is not None]
    return bool(names) and all(map(CONTENT_ID.fullmatch, names)) and (ancestor.teacher or "").isprintable()


def _printable(name: str) -> str:
    """A name as a lineage may hold it: no control characters, no lone surrogates, at most 300 characters."""
    return "".join(each if each.isprintable() else "?" for each in name[:300])


def _bounded(ancestors: tuple[Ancestor, ...]) -> tuple[Ancestor, ...]:
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
    return tuple(each.model_copy(update={"parents": _cut(each.parents, depth - 1)}) for each in ancestors)
