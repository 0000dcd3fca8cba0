"""Settings of `kdcache verify`. No torch."""

from typing import Annotated

from pydantic import Field

from kdcache.base.engine_settings import EngineSettings
from kdcache.base.limits import ROWS_MAX
from kdcache.base.ranges import Range
from kdcache.base.setting_types import Arguments, Processes
from kdcache.base.worker_start import DEFAULT_START, WorkerStart
from kdcache.pipelines.settings import WEIGHTS_TEXT


class VerifySettings(EngineSettings):
    """Settings of `kdcache verify`."""

    store: str = Field(description="folder or http(s) address of the store")
    data: str = Field(default="", description="replay views of this data set and compare fingerprints")
    data_set: Arguments = Field(default={}, description="key=value for the data set, for example split=train")
    transform: str = Field(default="", description="the store's transform, where it is one of your own")
    transform_set: Arguments = Field(default={}, description="key=value for that transform")
    teacher: str = Field(default="", description="ask this teacher again for some rows; needs --data")
    teacher_set: Arguments = Field(default={}, description="key=value for the teacher")
    weights: str = Field(default="", description=WEIGHTS_TEXT)
    rows: Annotated[int, Range(0, ROWS_MAX)] = Field(
        default=512, description="rows a view that are drawn again; 0 means all"
    )
    workers: Processes = Field(default=0, description="processes that draw views")
    worker_start: WorkerStart = Field(default=DEFAULT_START, description="how these processes begin")
    device: str = Field(default="", description="where the teacher runs")
    repair: bool = Field(default=False, description="remove damaged blocks, so that extract redoes just those")
