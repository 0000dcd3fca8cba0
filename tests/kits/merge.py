"""Parts of stores for merging: some blocks of a case each, and merges in processes that are killed at a step."""

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kdcache.sharing.merge import merge_stores
from tests.kits.crash import Disk, on
from tests.kits.forks import forks
from tests.kits.stores import Case, create_store, make_case, write_views

ROWS, BLOCKS = 200, 4  # blocks of 64, the last of 8


def part(path: Path, case: Case, blocks: Iterable[int], start: int = 0) -> str:
    """An unsealed store that holds some blocks of one segment from view `start` on."""
    write_views(create_store(path, case), start, case.logits, blocks)
    return str(path)


def case_of(seed: int = 0, rows: int = ROWS) -> Case:
    """Equal orders and labels for all seeds: other logits of the same teacher."""
    case = make_case(rows)
    return case if not seed else Case(case.identity, case.order, case.labels, make_case(rows, seed=seed).logits)


class _Fatal(Disk):
    """A disk at whose step `at` the process is killed for good."""

    def _counted(self, name: str, real: Any) -> Any:
        def step(*given: Any, **more: Any) -> Any:
            if name == "open" and not given[1] & os.O_CREAT:
                return real(*given, **more)
            self.steps.append(name)
            if len(self.steps) > self.at:
                if name == "write":
                    real(given[0], bytes(given[1])[: len(given[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **more)

        return step


def _do_and_die(work: Callable[..., Any], given: tuple[Any, ...], at: int) -> None:
    with on(_Fatal(at)):
        work(*given)


def killed(work: Callable[..., Any], *given: Any, at: int) -> int | None:
    """Exit code of work that SIGKILL ends at its writing step number `at`."""
    process = forks.Process(target=_do_and_die, args=(work, given, at))
    process.start()
    process.join(60)
    return process.exitcode


def killed_merge(inputs: list[str], out: Path, at: int) -> int | None:
    """Exit code of a merge that SIGKILL ends at its writing step number `at`."""
    return killed(merge_stores, inputs, str(out), at=at)


def _merge(inputs: list[str], out: str) -> None:
    merge_stores(inputs, out)


def merges_at_once(inputs: list[str], out: Path, count: int) -> list[int | None]:
    """Exit codes of the same merge by some processes at once."""
    processes = [forks.Process(target=_merge, args=(inputs, str(out))) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]
