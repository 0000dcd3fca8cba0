"""Extraction by several processes that torchrun started: each takes blocks by its number, the first one ends the work.

Nothing is sent between them: the store says what is done. So they may be started again as another number of processes.
"""

import time

from kdcache.base.launch import Launch
from kdcache.base.progress import Progress, StopRequest
from kdcache.errors import InvalidInputError
from kdcache.pipelines.extract.block_loop import RESUME
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.commits import listed_blocks
from kdcache.store.segment import Segment
from kdcache.training.process_group import own_device

PATIENCE = 600.0  # seconds without any commit of the others, after which their blocks are taken over
TIMES_OWN = 10.0  # or so many times what a block took here, where that is longer
LISTING_SHARE = 0.05  # of the waiting that may go into listing commits


def own_blocks(blocks: list[int], launch: Launch) -> list[int]:
    """Those of `blocks` that are this process's: by block mod number of processes, whatever is done already."""
    return [block for block in blocks if block % launch.world_size == launch.rank]


def on_own_device(settings: ExtractSettings, launch: Launch) -> ExtractSettings:
    """The settings with this process's own device. Raises InvalidInputError for an engine that is not local as well."""
    if launch.world_size == 1:
        return settings
    if settings.engine != "local":
        raise InvalidInputError(f"engine is {settings.engine!r} in one of {launch.world_size} processes; choose either")
    return settings.model_copy(update={"device": own_device(settings.device)})


def await_others(segment: Segment, *, seconds_a_block: float, progress: Progress, stop: StopRequest) -> list[int]:
    """Wait until all blocks are committed, and return none; or else those that are missing, once nothing was committed
    for longer than a process could need for a block."""
    total, patience = segment.layout.blocks, max(PATIENCE, TIMES_OWN * seconds_a_block)
    since, before, pause = time.monotonic(), -1, 0.2
    while True:
        began = time.monotonic()
        done = set(listed_blocks(segment.folder, segment.layout))
        now = time.monotonic()
        if len(done) >= total:
            return []
        if len(done) != before:
            since, before = now, len(done)
            progress("waiting for the other processes", len(done), total)
        elif now - since > patience:
            progress("taking over what the other processes left", len(done), total)
            return [block for block in range(total) if block not in done]
        stop.check(RESUME)
        time.sleep(max(pause, (now - began) / LISTING_SHARE))
