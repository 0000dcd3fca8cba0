"""The plan of a merge: the blocks that it copies, and from which inputs. Blocks whose bytes differ are refused."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdcache.base.records import require_equal
from kdcache.errors import InvalidInputError, MismatchError, MissingBlockError
from kdcache.places.folder import Folder
from kdcache.places.opening import open_folder
from kdcache.places.place import is_url
from kdcache.store.commits import Commit
from kdcache.store.layout import MANIFEST, SegmentLayout
from kdcache.store.own_folder import require_writable
from kdcache.store.seals import split_pin
from kdcache.store.store import Store
from kdcache.store.whole_arrays import head_digest

SHOWN = 8  # blocks that a message lists
Key = tuple[str, int]  # segment and block


@dataclass(frozen=True)
class MergeInput:
    """A store to merge, by the name that the user gave it, and all its commits."""

    name: str
    store: Store
    commits: dict[Key, Commit]


@dataclass(frozen=True)
class MergePlan:
    """The segments of the output and the blocks to copy.

    `holders` has, for each block to copy, the inputs that hold it, all in equal bytes; the first of them is read first.
    `present` is the number of blocks that lie in the output already.
    """

    layouts: tuple[SegmentLayout, ...]
    holders: dict[Key, list[MergeInput]]
    present: int


def open_inputs(names: Sequence[str]) -> list[MergeInput]:
    """Open two or more stores. Raises MismatchError where they are not of one identity and classifier."""
    if len(names) < 2:
        raise InvalidInputError(f"{len(names)} store was given to merge; name two or more, and the output last")
    inputs = [_open_input(name) for name in names]
    first = inputs[0]
    for other in inputs[1:]:
        headline, owners = f"{other.name} is not of the identity of {first.name}:", (first.name, other.name)
        advice = "only segments and blocks of one identity can be merged; kdcache diff compares these stores"
        require_equal(first.store.identity, other.store.identity, headline, advice, names=owners)
        _require_equal_heads(first, other)
    _require_one_decoder(inputs)
    if not any(entry.commits for entry in inputs):
        raise MissingBlockError(f"none of {', '.join(names)} has a committed block; run kdcache extract")
    return inputs


def _require_one_decoder(inputs: list[MergeInput]) -> None:
    """Raises InvalidInputError for inputs of two decoders: their images of one file differ once they are cropped, and
    no run could replay rows of both."""
    names = {entry.store.manifest.provenance.decoder.partition(" ")[0]: entry.name for entry in inputs}
    decoders = {decoder: name for decoder, name in names.items() if decoder not in ("", "none")}
    if len(decoders) > 1:
        text = " and ".join(f"{name} by {decoder}" for decoder, name in sorted(decoders.items()))
        raise InvalidInputError(f"images were decoded otherwise: {text}; merge stores whose images had one decoder")


def open_output(out: str, first: MergeInput) -> tuple[Folder, MergeInput | None]:
    """The output's folder, and the store that stands there, if any.

    Raises InvalidInputError where `out` is a pin or holds other files, and MismatchError where it is a store of another
    identity or classifier than `first`.
    """
    require_writable(out)
    folder = open_folder(out)
    if folder.size(MANIFEST) is None:
        return folder, None
    output = _open_input(out)
    headline, owners = f"{out} is not of the identity of {first.name}:", (out, first.name)
    advice = "merge into a new folder, or into a store of the same identity"
    require_equal(output.store.identity, first.store.identity, headline, advice, names=owners)
    return folder, output


def make_plan(inputs: Sequence[MergeInput], output: MergeInput | None) -> MergePlan:
    """The plan of a merge. A store that stands in the output is one more holder of its blocks, and is never replaced.

    Raises MismatchError for blocks whose bytes differ, InvalidInputError for segments that overlap.
    """
    stores = [*([] if output is None else [output]), *inputs]
    layouts = _layouts(stores)
    blocks: dict[Key, list[MergeInput]] = {}
    conflicts = []
    for key in sorted({key for entry in inputs for key in entry.commits}):
        holders = [store for store in stores if key in store.commits]
        if any(holder.commits[key].shards != holders[0].commits[key].shards for holder in holders):
            conflicts.append((key, holders))
        elif output not in holders:
            blocks[key] = holders
    if conflicts:
        raise _conflict_error(conflicts, output)
    return MergePlan(layouts, blocks, 0 if output is None else len(output.commits))


def _open_input(name: str) -> MergeInput:
    """A store to merge: the segments of its seal, or, of a folder without a pin, all that is committed there. Raises
    MissingBlockError for a copy that was made without taps: blocks are merged whole."""
    path, pin = split_pin(name)
    store = Store.open(name) if pin or is_url(path) else Store.open_for_writing(path)
    commits = {
        (segment.layout.name, block): commit
        for segment in store.segments
        for block, commit in segment.commits().items()
    }
    for segment in store.segments:
        segment.require_held(segment.left_out)
    return MergeInput(name, store, commits)


def _require_equal_heads(first: MergeInput, other: MergeInput) -> None:
    """Raises MismatchError where classifiers differ. The identity holds a classifier's width alone."""
    if not first.store.identity.encoding.head:
        return
    one, another = (head_digest(entry.store.head()) for entry in (first, other))
    if one != another:
        headline, owners = f"{other.name} has another classifier than {first.name}:", (first.name, other.name)
        raise MismatchError(headline, [("head", one, another)], "extract one of them again", owners)


def _layouts(stores: Sequence[MergeInput]) -> tuple[SegmentLayout, ...]:
    """The layouts of all segments of some stores, each once. Raises InvalidInputError where two overlap."""
    layouts: dict[str, tuple[SegmentLayout, str]] = {}
    for entry in stores:
        for layout in (segment.layout for segment in entry.store.segments):
            for other, name in layouts.values():
                if layout.name != other.name and layout.views.overlaps(other.views):
                    problem = f"{entry.name} has {layout.name}, {name} has {other.name}"
                    advice = "segments of a store may not overlap: keep one of the two, and extract the views it lacks"
                    raise InvalidInputError(f"views overlap: {problem}; {advice}")
            layouts.setdefault(layout.name, (layout, entry.name))
    return tuple(layout for _, (layout, _) in sorted(layouts.items()))


def _conflict_error(conflicts: list[tuple[Key, list[MergeInput]]], output: MergeInput | None) -> MismatchError:
    """The error that names the blocks, and for each the first array that differs, with both digests."""
    differences = []
    for key, holders in conflicts[:SHOWN]:
        shards = holders[0].commits[key].shards
        other = next(holder for holder in holders if holder.commits[key].shards != shards)
        other_shards = other.commits[key].shards
        name = next(name for name in shards if shards[name] != other_shards[name])
        digests = (
            f"{shards[name].sha256[:16]} ({holders[0].name})",
            f"{other_shards[name].sha256[:16]} ({other.name})",
        )
        differences.append((f"{key[0]} block {key[1]}, {name}", *digests))
    advice = (
        "the same rows were extracted twice, with other last bits (kdcache diff compares two stores): leave one of "
        "them out, and run kdcache extract on the result for the blocks that it then lacks"
    )
    if any(output in holders for _, holders in conflicts):
        advice = f"{advice}; nothing that lies in the output is replaced: merge into a new folder to leave that out"
    headline = f"inputs hold different bytes of {len(conflicts)} blocks" + (", such as:" if conflicts[SHOWN:] else ":")
    return MismatchError(headline, differences, advice, ("one", "another"))
