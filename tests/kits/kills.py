"""Writers in processes of their own, killed at random moments: what is left must be whole or absent."""

import os
import random
import signal
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from kdcache.base.view_span import ViewSpan
from kdcache.labels.encoding import Tap
from kdcache.labels.topk import TopKEncoding
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.forks import forks
from tests.kits.stores import Case, commit_logits, create_store, make_case

ROWS, VIEWS = 500, 2  # 8 blocks
STRUCK = (5, 130, 131, 499)
ENCODING = TopKEncoding(k=4, taps=(Tap(name="layer1", shape=(2, 3)),), contents="bytes")
NOISE = 0.2


def case_of(writer: int, noisy: bool) -> Case:
    """The logits of one writer: equal for all, or with other last bits for each."""
    case = make_case(ROWS, 20, views=VIEWS, struck=STRUCK, encoding=ENCODING)
    if noisy:
        case.logits[:] += np.random.RandomState(100 + writer).normal(0, NOISE, case.logits.shape).astype("f4")
    return case


def write(path: str, writer: int, noisy: bool) -> None:
    """One writer, start to end: each block in an order of its own, what another has taken at the end, then the seal."""
    os.setpgrp()
    case = case_of(writer, noisy)
    store = create_store(Path(path), case)
    segment = store.add_segment(ViewSpan(0, VIEWS))
    blocks = list(range(segment.layout.blocks))
    random.Random(writer).shuffle(blocks)
    device = f"writer {writer}"
    left = []
    for block in blocks:
        struck = case.struck_in(segment, block)
        if commit_logits(store, segment, block, case.logits, device=device, struck=struck) is None:
            left.append(block)
    for block in left:
        struck = case.struck_in(segment, block)
        assert commit_logits(store, segment, block, case.logits, adopt=True, device=device, struck=struck) is not None
    store.seal()


def start(path: Path, writer: int, noisy: bool) -> BaseProcess:
    process = forks.Process(target=write, args=(str(path), writer, noisy))
    process.start()
    return process


def run_writers(path: Path, count: int, noisy: bool) -> None:
    """`count` writers at once, none of them killed."""
    processes = [start(path, writer, noisy) for writer in range(count)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def run_killed(path: Path, kills: int, noisy: bool, seed: int) -> int:
    """Two writers at once, each killed at random moments and started again until `kills` were done; then both end.

    Returns the kills that met a living writer.
    """
    rng, done = random.Random(seed), 0
    processes = [start(path, writer, noisy) for writer in range(2)]
    while done < kills:
        victim = rng.randrange(2)
        processes[victim].join(rng.uniform(0, 0.12))
        process = processes[victim]
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            done += 1
        if not (path / "kdcache/seals/latest").exists() or done >= kills:
            processes[victim] = start(path, victim, noisy)
        else:
            break  # a whole store: another one has to be begun
    for process in processes:
        process.join(120)
    return done


def check_rows(path: Path, writers: int, noisy: bool) -> Counter[str]:
    """Every block is whole, every shard is one writer's, and a block of two writers says that it is mixed."""
    assert inspect_files(str(path)).whole
    store = Store.open(path)
    (segment,) = store.segments
    assert segment.struck().tolist() == list(STRUCK)
    models = [_model(path.parent / f"model-{noisy}-{writer}.kd", writer, noisy) for writer in range(writers)]
    seen = Counter[str]()
    for block, commit in segment.commits().items():
        owners = []
        for name, spec in segment.layout.arrays_of(block).items():
            data = (path / spec.key(block)).read_bytes()
            holders = {w for w, model in enumerate(models) if (model / spec.key(block)).read_bytes() == data}
            assert holders, f"{spec.key(block)} is nobody's"
            owners.append((name, holders))
        alone = set.intersection(*(holders for _, holders in owners))
        assert alone or commit.mixed, f"block {block} is mixed in silence: {owners}"
        seen["one writer's" if alone else "mixed"] += 1
        seen["marked mixed"] += commit.mixed
    seen["blocks"] = segment.layout.blocks
    return seen


def _model(path: Path, writer: int, noisy: bool) -> Path:
    """What one writer alone writes."""
    if not path.exists():
        case = case_of(writer, noisy)
        store = create_store(path, case)
        segment = store.add_segment(ViewSpan(0, VIEWS))
        for block in range(segment.layout.blocks):
            struck = case.struck_in(segment, block)
            assert commit_logits(store, segment, block, case.logits, struck=struck) is not None
    return path


def kill_many(folder: Path, kills: int, seed: int = 0) -> Counter[str]:
    """Stores by two writers, equal and noisy in turn, until `kills` SIGKILLs were survived. Raises AssertionError."""
    seen, began, number = Counter[str](), time.monotonic(), 0
    while seen["kills"] < kills:
        path, noisy = folder / f"{number}.kd", bool(number % 2)
        seen["kills"] += run_killed(path, min(30, kills - seen["kills"]), noisy, seed + number)
        for writer in range(2):  # whoever is left finishes what the dead have left
            process = start(path, writer, noisy)
            process.join(120)
            assert process.exitcode == 0
        seen += check_rows(path, 2, noisy)
        number += 1
    seen["stores"], seen["seconds"] = number, round(time.monotonic() - began)
    return seen
