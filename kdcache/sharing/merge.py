"""A merge: stores of one identity are joined in one folder, from blocks and segments that were extracted apart.

A block is copied as it was committed: each file is compared with the commit's sha256 on the way, shards go first, the
ticket before the others, and the commit last, all create-only. So a merge that is killed leaves whole blocks, and the
same command goes on. Nothing that lies in the output is ever replaced.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from kdcache.base.canonical import sha256_hex
from kdcache.base.progress import Activity, Progress, StopRequest, silent
from kdcache.base.records import Record
from kdcache.errors import DamagedError, StoreError
from kdcache.places.folder import Folder
from kdcache.sharing.merge_plan import SHOWN, MergeInput, MergePlan, make_plan, open_inputs, open_output
from kdcache.store.commits import read_commit
from kdcache.store.layout import CARD, SegmentLayout
from kdcache.store.manifest import Card
from kdcache.store.shards import largest_shard
from kdcache.store.store import Store

MERGING = Activity("merging", "blocks")
AGAIN = "run the same kdcache merge again to go on"


class MissingBlocks(Record):
    """The blocks of a segment that no input has: `missing` of its `blocks`, the first of them `first`."""

    segment: str
    blocks: int
    missing: int
    first: int


class Merged(Record):
    """The result of a merge.

    `taken` counts the blocks copied from each input, `present` those that lay in the output before. `content_id` is
    None where no seal was written.
    """

    out: str
    content_id: str | None
    blocks: int
    present: int
    taken: dict[str, int]
    bytes: int
    missing: tuple[MissingBlocks, ...]


def merge_stores(
    inputs: Sequence[str],
    out: str,
    *,
    seal: bool = True,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> Merged:
    """Join two or more stores of one identity in `out`: a new folder, a store of that identity, or one of the inputs.

    An input with a pin counts as its seal lists it, a folder without one with all its commits, sealed or not, and a
    store on a web server as its latest seal lists it. A block whose bytes differ between inputs is refused. The output
    is sealed once it is whole.

    Raises MismatchError where identities, classifiers or blocks differ; InvalidInputError for segments that overlap and
    for an unusable output; DamagedError for a file that differs from its commit, before anything of it is written;
    StoreError where files without a commit have a block's place; InterruptedRunError on a stop.
    """
    stores = open_inputs(inputs)
    folder, output = open_output(out, stores[0])
    merge_plan = make_plan(stores, output)
    store = _prepare(folder, stores, merge_plan)
    counts, size = _copy_blocks(folder, merge_plan, progress, stop or StopRequest())
    incomplete_segments = tuple(missing_blocks(store))
    return Merged(
        out=str(folder.root),
        content_id=store.seal().content_id if seal and not incomplete_segments else None,
        blocks=sum(len(segment.commits()) for segment in Store.open_for_writing(store.folder.root).segments),
        present=merge_plan.present,
        taken={entry.name: counts[entry.name] for entry in stores},
        bytes=size,
        missing=incomplete_segments,
    )


def _prepare(folder: Folder, inputs: Sequence[MergeInput], merge_plan: MergePlan) -> Store:
    """The output's store: manifest, order, labels, head, segments and a card are made where they are missing."""
    first = inputs[0].store
    store = Store.create(
        folder.root,
        first.identity,
        order=first.order,
        labels=first.labels,
        provenance=first.manifest.provenance,
        head=first.head() if first.identity.encoding.head else None,
    )
    for layout in merge_plan.layouts:
        store.add_segment(layout.views)
    cards = [card for entry in inputs if (card := entry.store.card) != Card()]
    if cards:
        folder.put_new(CARD, cards[0].to_bytes())
    return store


def _copy_blocks(
    folder: Folder, merge_plan: MergePlan, progress: Progress, stop: StopRequest
) -> tuple[Counter[str], int]:
    """Copy the blocks of a plan. Returns the number from each input, and the bytes in all."""
    layouts = {layout.name: layout for layout in merge_plan.layouts}
    counts, size, conflicts = Counter[str](), 0, []
    progress(MERGING, 0, len(merge_plan.holders))
    for number, ((name, block), holders) in enumerate(merge_plan.holders.items(), 1):
        stop.check(AGAIN)
        if (holder := _copy_block(folder, layouts[name], block, holders)) is not None:
            counts[holder.name] += 1
            size += sum(shard.size for shard in holders[0].commits[name, block].shards.values())
        else:
            conflicts.append((name, block))
        progress(MERGING, number, len(merge_plan.holders))
    if conflicts:
        blocks = ", ".join(f"{name} block {block}" for name, block in conflicts[:SHOWN])
        raise StoreError(
            f"{folder.root} holds other files in the place of {len(conflicts)} blocks, left by a writer that has not "
            f"committed them ({blocks}); finish that extract, or merge into a new folder"
        )
    return counts, size


def _copy_block(folder: Folder, layout: SegmentLayout, block: int, holders: Sequence[MergeInput]) -> MergeInput | None:
    """Copy one block, its commit last. Returns the input that most of its files came from. Where another writer's files
    are in its place, no commit is written and None returned."""
    commit = holders[0].commits[layout.name, block]
    counts = Counter[int]()
    for name, spec in layout.arrays_of(block).items():
        data, number = _read_checked(layout, block, name, holders)
        counts[number] += 1
        if not folder.put_new(spec.key(block), data) and folder.digest(spec.key(block)) != commit.shards[name].sha256:
            return None
    folder.put_new(layout.commit_key(block), commit.to_bytes())
    current = read_commit(folder, layout, block)
    if current is None or current.shards != commit.shards:
        return None
    return holders[max(counts, key=lambda number: (counts[number], -number))]


def _read_checked(layout: SegmentLayout, block: int, name: str, holders: Sequence[MergeInput]) -> tuple[bytes, int]:
    """The committed bytes of a file, and the number of the first holder that still has them. Raises DamagedError where
    none has."""
    spec, problems = layout.arrays[name], []
    for number, holder in enumerate(holders):
        shard, folder = holder.commits[layout.name, block].shards[name], holder.store.folder
        path = folder.path(spec.key(block))
        try:
            data = folder.require(spec.key(block), folder.mend, limit=largest_shard(spec))
        except StoreError as error:
            problems.append(str(error))
            continue
        if (digest := sha256_hex(data)) == shard.sha256:
            return data, number
        problems.append(f"{path} has sha256 {digest[:16]}, committed was {shard.sha256[:16]}; {folder.mend}")
    raise DamagedError("; ".join(problems))


def missing_blocks(store: Store) -> Iterator[MissingBlocks]:
    """The segments of a folder that lack blocks."""
    for segment in Store.open_for_writing(store.folder.root).segments:
        commits, blocks = segment.commits(), segment.layout.blocks
        if unfinished_blocks := [block for block in range(blocks) if block not in commits]:
            yield MissingBlocks(
                segment=segment.layout.name, blocks=blocks, missing=len(unfinished_blocks), first=unfinished_blocks[0]
            )
