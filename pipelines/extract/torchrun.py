"""Several processes of torchrun share an extraction: each takes blocks by its rank, and the first one ends the work.

Nothing is sent between them: the store says which blocks are done. So another number of processes may go on with it.
"""

import time

from kdcache.base.launch import Launch
from kdcache.base.progress import Progress, StopRequest
from kdcache.errors import InvalidInputError
from kdcache.pipelines.extract.block_runner import RESUME
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.commits import listed_blocks
from kdcache.store.segment import Segment
from kdcache.training.process_group import own_device

PATIENCE = 600.0  # seconds without any commit of the others, after which their blocks are taken over
TIMES_OWN = 10.0  # or so many times the seconds that a block took in this process, where that is longer
LISTING_SHARE = 0.05  # of the waiting that may go into listing commits


def own_blocks(blocks: list[int], launch: Launch) -> list[int]:
    """The blocks that this process takes: block mod number of processes is its rank, whatever is done already."""
    return [block for block in blocks if block % launch.world_size == launch.rank]


def on_own_device(settings: ExtractSettings, launch: Launch) -> ExtractSettings:
    """The settings with this process's own device. Raises InvalidInputError for an engine that is not local as well."""
    if launch.world_size == 1:
        return settings
    if settings.engine != "local":
        raise InvalidInputError(f"engine is {settings.engine!r} in one of {launch.world_size} processes; choose either")
    return settings.model_copy(update={"device": own_device(settings.device)})


def await_others(segment: Segment, *, seconds_a_block: float, progress: Progress, stop: StopRequest) -> list[int]:
    """Wait until all blocks are committed, and return no block. Return the missing blocks once no block was committed
    for longer than a process could need for one."""
    total, patience = segment.layout.blocks, max(PATIENCE, TIMES_OWN * seconds_a_block)
    last_change, last_count, pause = time.monotonic(), -1, 0.2
    while True:
        listing_start = time.monotonic()
        blocks = set(listed_blocks(segment.folder, segment.layout))
        listing_end = time.monotonic()
        if len(blocks) >= total:
            return []
        if len(blocks) != last_count:
            last_change, last_count = listing_end, len(blocks)
            progress("waiting for the other processes", len(blocks), total)
        elif listing_end - last_change > patience:
            progress("taking over what the other processes left", len(blocks), total)
            return [block for block in range(total) if block not in blocks]
        stop.check(RESUME)
        time.sleep(max(pause, (listing_end - listing_start) / LISTING_SHARE))
