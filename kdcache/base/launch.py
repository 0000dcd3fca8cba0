"""A launch: this process's number among those that torchrun, or whoever starts processes as it does, has started."""

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
    """The launch in the environment; `ALONE` where a variable of torchrun's is missing. Raises InvalidInputError."""
    if any(name not in os.environ for name in NAMES):
        return ALONE
    values = {name: os.environ[name] for name in NAMES[:3]}
    try:
        launch = Launch(*map(int, values.values()))
    except ValueError:
        launch = Launch(rank=-1)
    if not (0 <= launch.rank < launch.world_size and 0 <= launch.local_rank < launch.world_size):
        text = ", ".join(f"{name} {value}" for name, value in values.items())
        raise InvalidInputError(f"the environment says {text}; start the processes with torchrun")
    return launch
