"""Joining stores of one identity in one folder: blocks and segments that were extracted apart, copied and checked.

A block is copied as it was committed: each file is held against the commit's sha256 on the way, shards go first, the
ticket before the others, and the commit last, all create-only. So a merge that is killed leaves whole blocks, and the
same command goes on; nothing that lies in the output is ever replaced.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from kdcache.base.canonical import sha256_hex
from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.records import Record
from kdcache.errors import DamagedError, StoreError
from kdcache.places.folder import Folder
from kdcache.sharing.merge_plan import SHOWN, Choice, Plan, Source, make_plan, open_inputs, open_output
from kdcache.store.commits import read_commit
from kdcache.store.layout import CARD, SegmentLayout
from kdcache.store.manifest import Card
from kdcache.store.shards import largest_shard
from kdcache.store.store import Store, open_segments

AGAIN = "run the same kdcache merge again to go on"


class MissingBlocks(Record):
    """Blocks of a segment that no input has, of how many there are."""

    segment: str
    blocks: int
    missing: int
    first: int


class Merged(Record):
    """What a merge has done. `taken` counts blocks copied from each input, `present` those that lay in the output
    before, `chosen` are those that inputs held in different bytes. `content_id` is None where no seal was written."""

    out: str
    content_id: str | None
    blocks: int
    present: int
    taken: dict[str, int]
    bytes: int
    chosen: tuple[Choice, ...]
    missing: tuple[MissingBlocks, ...]


def merge_stores(
    inputs: Sequence[str],
    out: str,
    *,
    prefer: str | None = None,
    seal: bool = True,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> Merged:
    """Join two or more stores of one identity in `out`: a new folder, a store of that identity, or one of the inputs.

    An input with a pin is what its seal lists; a folder without one is all that is committed there, sealed or not; a
    store on a web server is its latest seal. A block of which inputs hold different bytes is refused, or taken from
    `prefer`, which is one of the inputs. A whole output is sealed.

    Raises MismatchError where identities, classifiers or blocks differ, InvalidInputError for segments that overlap and
    for an output that is none, DamagedError for a file that is not what its commit says, before anything of it is
    written, StoreError where files without a commit take a block's place, InterruptedRunError on a stop.
    """
    sources = open_inputs(inputs, prefer)
    folder, standing = open_output(out, sources[0])
    plan = make_plan(sources, standing, prefer)
    store = _prepare(folder, sources, plan)
    taken, size = _copy_blocks(folder, plan, progress, stop or StopRequest())
    missing = tuple(missing_blocks(store))
    return Merged(
        out=str(folder.root),
        content_id=store.seal().content_id if seal and not missing else None,
        blocks=sum(len(segment.commits()) for segment in open_segments(store)),
        present=plan.present,
        taken={source.name: taken[source.name] for source in sources},
        bytes=size,
        chosen=plan.chosen,
        missing=missing,
    )


def _prepare(folder: Folder, sources: Sequence[Source], plan: Plan) -> Store:
    """Manifest, order, labels, head and segments, made where they are missing; a card where the output has none."""
    first = sources[0].store
    store = Store.create(
        folder.root,
        first.identity,
        order=first.order,
        labels=first.labels,
        provenance=first.manifest.provenance,
        head=first.head() if first.identity.encoding.head else None,
    )
    for layout in plan.layouts:
        store.add_segment(layout.views)
    cards = [card for source in sources if (card := source.store.card) != Card()]
    if cards:
        folder.put_new(CARD, cards[0].to_bytes())
    return store


def _copy_blocks(folder: Folder, plan: Plan, progress: Progress, stop: StopRequest) -> tuple[Counter[str], int]:
    """Copy all blocks that are wanted; returns how many from each input, and the bytes."""
    layouts = {layout.name: layout for layout in plan.layouts}
    taken, size, left = Counter[str](), 0, []
    progress("merging blocks", 0, len(plan.wanted))
    for done, ((name, block), holders) in enumerate(plan.wanted.items(), 1):
        stop.check(AGAIN)
        if (source := _copy_block(folder, layouts[name], block, holders)) is not None:
            taken[source.name] += 1
            size += sum(shard.size for shard in holders[0].commits[name, block].shards.values())
        else:
            left.append((name, block))
        progress("merging blocks", done, len(plan.wanted))
    if left:
        blocks = ", ".join(f"{name} block {block}" for name, block in left[:SHOWN])
        raise StoreError(
            f"{folder.root} holds other files in the place of {len(left)} blocks, left by a writer that has not "
            f"committed them ({blocks}); finish that extract, or merge into a new folder"
        )
    return taken, size


def _copy_block(folder: Folder, layout: SegmentLayout, block: int, holders: Sequence[Source]) -> Source | None:
    """Copy one block, commit last. The input that most of its files came from; None, and no commit, where another
    writer's files are in its place."""
    commit = holders[0].commits[layout.name, block]
    read = Counter[int]()
    for name, spec in layout.arrays_of(block).items():
        data, holder = _checked(layout, block, name, holders)
        read[holder] += 1
        if not folder.put_new(spec.key(block), data) and folder.digest(spec.key(block)) != commit.shards[name].sha256:
            return None
    folder.put_new(layout.commit_key(block), commit.to_bytes())
    standing = read_commit(folder, layout, block)
    if standing is None or standing.shards != commit.shards:
        return None
    return holders[max(read, key=lambda holder: (read[holder], -holder))]


def _checked(layout: SegmentLayout, block: int, name: str, holders: Sequence[Source]) -> tuple[bytes, int]:
    """A file's bytes, which are those of the commit, from the first holder that still has them, and which one that is.
    Raises DamagedError."""
    spec, problems = layout.arrays[name], []
    for number, source in enumerate(holders):
        shard, folder = source.commits[layout.name, block].shards[name], source.store.folder
        path = folder.path(spec.key(block))
        try:
            data = folder.require(spec.key(block), folder.mend, limit=largest_shard(spec))
        except StoreError as error:
            problems.append(str(error))
            continue
        if (found := sha256_hex(data)) == shard.sha256:
            return data, number
        problems.append(f"{path} has sha256 {found[:16]}, committed was {shard.sha256[:16]}; {folder.mend}")
    raise DamagedError("; ".join(problems))


def missing_blocks(store: Store) -> Iterator[MissingBlocks]:
    """Segments of a folder that lack blocks."""
    for segment in open_segments(store):
        commits, blocks = segment.commits(), segment.layout.blocks
        if lacking := [block for block in range(blocks) if block not in commits]:
            yield MissingBlocks(segment=segment.layout.name, blocks=blocks, missing=len(lacking), first=lacking[0])
