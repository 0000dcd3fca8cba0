"""Which process of how many this is: what torchrun, or whoever starts processes as it does, says in the environment."""

import os
from dataclasses import dataclass

from kdcache.errors import InvalidInputError

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """This process is number `rank` of `world_size` that work together, and number `local_rank` on its machine."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1


ALONE = Launch()


def launched() -> Launch:
    """What the environment says; alone where it does not name all that torchrun names. Raises InvalidInputError."""
    if any(name not in os.environ for name in NAMES):
        return ALONE
    given = {name: os.environ[name] for name in NAMES[:3]}
    try:
        found = Launch(*map(int, given.values()))
    except ValueError:
        found = Launch(rank=-1)
    if not (0 <= found.rank < found.world_size and 0 <= found.local_rank < found.world_size):
        said = ", ".join(f"{name} {value}" for name, value in given.items())
        raise InvalidInputError(f"the environment says {said}; start the processes with torchrun")
    return found
