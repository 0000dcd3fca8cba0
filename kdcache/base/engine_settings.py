"""Settings of the engines that run work block by block: this process, or Dask. Dask is not imported here."""

from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from kdcache.base.ranges import PROCESSES_MAX, Range
from kdcache.errors import InvalidInputError


class EngineChoice(Protocol):
    """Settings that name an engine, those of `extract` among them."""

    @property
    def engine(self) -> Literal["local", "dask"]: ...
    @property
    def scheduler(self) -> str: ...
    @property
    def dask_workers(self) -> int: ...


class EngineSettings(BaseModel):
    """Settings of every command that works block by block."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["local", "dask"] = Field(default="local", description="this process, or Dask: many, and machines")
    scheduler: str = Field(default="", description="address of a running Dask scheduler, such as tcp://HOST:8786")
    dask_workers: Annotated[int, Range(0, PROCESSES_MAX)] = Field(
        default=0, description="processes on this machine; 0: one a core, up to 8, or of a sweep one a GPU"
    )


def wants_dask(settings: EngineChoice) -> bool:
    """True where Dask is the engine. Raises InvalidInputError for settings of Dask where it is not."""
    if settings.engine == "dask":
        return True
    for name in ("scheduler", "dask_workers"):
        if value := getattr(settings, name):
            raise InvalidInputError(f"{name} is {value!r} without --engine dask; add it, or leave {name} out")
    return False
