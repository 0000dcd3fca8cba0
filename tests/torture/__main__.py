"""Kills, damages, crash points, fuzzing and states at the larger size: one table, and exit 1 where a promise broke."""

import argparse
import platform
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from kdcache.cli.console import print_line, print_table
from tests.faults.test_store_machine import StoreMachine, TestStoreMachine
from tests.kits.damage import damages, rich_store, unseen
from tests.kits.fuzz import RECORDS, fuzz
from tests.kits.kills import check_rows, kill_many, run_writers

VERSIONS = ("kdcache", "numpy", "zarr", "numcodecs", "hypothesis")


def kills(folder: Path, count: int) -> str:
    seen = kill_many(folder, count)
    blocks = f"{seen['blocks']} blocks of {seen['stores']} stores whole, {seen['mixed']} of two writers, all marked"
    return f"{seen['kills']} SIGKILLs, two writers, equal and noisy in turn: {blocks}; 0 lost"


def writers(folder: Path, count: int) -> str:
    seen = Counter[str]()
    for number in range(count):
        at_once, noisy = 2 + 2 * (number % 2), number % 4 > 1
        run_writers(folder / f"{number}.kd", at_once, noisy)
        seen += check_rows(folder / f"{number}.kd", at_once, noisy)
    return (
        f"{count} stores by 2 and 4 writers at once: {seen['blocks']} blocks whole, {seen['mixed']} mixed, all marked"
    )


def harms(folder: Path, count: int) -> str:
    seen = damages(rich_store(folder / "rich.kd"), count, seed=2026)
    assert unseen(seen) == [], unseen(seen)
    by_outcome = Counter[str]()
    for (_, _, outcome), number in seen.items():
        by_outcome[outcome] += number
    free = sorted({kind for kind, _, outcome in seen if outcome == "equal"})
    said = f"{by_outcome['found']} found by verify, {by_outcome['refused']} refused by reading"
    rest = f"{by_outcome['equal']} harmless, with equal reads (in {', '.join(free)})"
    return f"{sum(seen.values())} damages: {said}, {rest}; {by_outcome['SILENT']} silent"


def mutations(folder: Path, count: int) -> str:
    store = rich_store(folder / "rich.kd")
    for record in RECORDS:
        fuzz(store, record, count // len(RECORDS))
    return f"{count} mutations of {len(RECORDS)} kinds of file: right or refused, no other exception"


def states(folder: Path, count: int) -> str:
    run_state_machine_as_test(StoreMachine, settings=settings(TestStoreMachine.settings, max_examples=count))
    return f"{count} runs of up to {TestStoreMachine.settings.stateful_step_count} rules, equal to the model"


PROMISES: dict[str, tuple[Callable[[Path, int], str], int]] = {
    "kills": (kills, 1000),
    "writers": (writers, 20),
    "damages": (harms, 7500),
    "fuzz": (mutations, 10_000),
    "states": (states, 60),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    for name, (_, count) in PROMISES.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    given = vars(parser.parse_args())
    rows, broken = [], 0
    for name, (run, _) in PROMISES.items():
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"kdcache-{name}-") as folder:
            try:
                said = run(Path(folder), given[name]) if given[name] else "left out"
            except Exception:  # noqa: BLE001
                said, broken = traceback.format_exc(limit=-3), broken + 1
        rows.append([name, said, round(time.monotonic() - began)])
        print_line(f"{name}: {said}")
    print_table(["promise", "seen", "seconds"], rows, title="torture")
    used = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print_line(f"python {platform.python_version()}, {platform.platform()}, {used}; {memory} MiB at most")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
