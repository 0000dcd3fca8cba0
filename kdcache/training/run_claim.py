"""The beginning of a run: all processes compare their inputs, the first holds the folder, all get its checkpoint."""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcache.base.folder_lock import Hold
from kdcache.base.records import flatten
from kdcache.errors import MismatchError
from kdcache.training.ranks import Ranks
from kdcache.training.run_folder import WhyNot, claim_run, held_run, load_state, parse_state, read_state


@dataclass(frozen=True)
class Claim:
    """A claimed run. `state`: the checkpoint from which it goes on, None at its start. `hold`: of its folder, on the
    process that writes."""

    state: dict[str, Any] | None
    hold: Hold | None


def claimed_run(
    folder: Path,
    record: dict[str, Any],
    ranks: Ranks,
    holds: ExitStack,
    *,
    in_step: dict[str, Any],
    why_not_longer: WhyNot | None = None,
) -> Claim:
    """Claim a run's folder, held while `holds` is open.

    Raises InvalidInputError for a folder that another process holds. Raises MismatchError for a folder of other
    settings, and where `record` or `in_step` (what else keeps the processes in step) differ from the first process's.
    `why_not_longer` as for `require_same_run`. The folder is the first process's alone: other machines need not see it.
    """
    hold: list[Hold] = []

    def claim() -> bool:
        hold.append(holds.enter_context(held_run(folder)))
        return claim_run(folder, record, why_not_longer)

    if ranks.alone:
        return Claim(load_state(folder) if claim() else None, hold[0])
    inputs = json.dumps(record | in_step).encode()
    first_inputs = ranks.from_first(inputs)
    ranks.together(lambda: _require_same(json.loads(first_inputs), json.loads(inputs)))
    data = ranks.together(lambda: read_state(folder) if ranks.first and claim() else b"")
    return Claim(parse_state(ranks.from_first(data), folder), hold[0] if hold else None)


def _require_same(first_inputs: dict[str, Any], inputs: dict[str, Any]) -> None:
    expected, current = flatten(first_inputs), flatten(inputs)
    names = [name for name in sorted(expected.keys() | current.keys()) if expected.get(name) != current.get(name)]
    if names:
        differences = [(name, repr(expected.get(name)), repr(current.get(name))) for name in names]
        advice = "give every process the same command, data set and stores"
        raise MismatchError("the processes of this run differ:", differences, advice, ("rank 0", "this rank"))
