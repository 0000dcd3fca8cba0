"""How a run begins: all processes are fed the same, the first one holds the folder, all get its checkpoint."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kdcache.base.records import flatten
from kdcache.errors import MismatchError
from kdcache.training.ranks import Ranks
from kdcache.training.run_folder import claim_run, held_run, load_state, parse_state, read_state


def claimed_state(
    folder: Path, record: dict[str, Any], ranks: Ranks, held: ExitStack, *, in_step: dict[str, Any]
) -> dict[str, Any] | None:
    """Claim a run's folder, and hold it as long as `held` is open; the checkpoint from which it goes on, None at its
    start. Raises InvalidInputError for a folder that another process holds, MismatchError for one of other settings,
    and where the record, or what else keeps the processes `in_step`, is not the first one's.

    The folder is the first process's alone: other machines need not see it.
    """

    def claim() -> bool:
        held.enter_context(held_run(folder))
        return claim_run(folder, record)

    if ranks.alone:
        return load_state(folder) if claim() else None
    own = json.dumps(record | in_step).encode()
    first = ranks.from_first(own)
    ranks.together(lambda: _require_same(json.loads(first), json.loads(own)))
    data = ranks.together(lambda: read_state(folder) if ranks.first and claim() else b"")
    return parse_state(ranks.from_first(data), folder)


def _require_same(first: dict[str, Any], own: dict[str, Any]) -> None:
    there, here = flatten(first), flatten(own)
    names = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    if names:
        differences = [(name, repr(there.get(name)), repr(here.get(name))) for name in names]
        advice = "give every process the same command, data set and stores"
        raise MismatchError("the processes of this run differ:", differences, advice, ("rank 0", "this rank"))
