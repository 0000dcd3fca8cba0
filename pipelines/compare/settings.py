"""Settings of `kdcache compare`, as flags and in TOML. No torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from kdcache.base.limits import VIEWS_MAX
from kdcache.base.ranges import ROWS_OF_BATCH_MAX, Range
from kdcache.base.setting_types import Arguments, Paths, Processes, listed
from kdcache.base.worker_start import DEFAULT_START, WorkerStart

FurtherMeasure = Literal["cka", "attention_iou", "sharpness"]


class CompareSettings(BaseModel):
    """Settings of `kdcache compare`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: Paths = Field(
        description="folders of runs (FOLDER@last: not the best weights), of sweeps, and stores: who is compared"
    )
    store: Paths = Field(
        default=(),
        description="the teacher's store of held-out rows; repeated: other teachers of them; default: a sweep's",
    )
    combine: Literal["probabilities", "logits", "predictions"] | None = Field(
        default=None, description="compare with all stores as one teacher, averaged so"
    )
    data: str = Field(
        default="", description="the data set of that store, needed where runs are compared; default: a sweep's"
    )
    data_set: Arguments = Field(default={}, description="key=value for the data set, for example split=test")
    transform: str = Field(default="", description="the store's transform, where it is one of your own")
    transform_set: Arguments = Field(default={}, description="key=value for that transform")
    view: Annotated[int | None, Range(0, VIEWS_MAX - 1)] = Field(
        default=None, description="the view of the store that is compared; its first by default"
    )
    by: str = Field(default="", description="group by this setting alone; default: by all but the seed")
    baseline: str = Field(default="", description="a run of the group that others are held against; default: the first")
    also: Annotated[tuple[FurtherMeasure, ...], BeforeValidator(listed)] = Field(
        default=(),
        description="measures that cost more: cka (of the store's features), attention_iou (of its last map and head), "
        "sharpness (of 512 rows)",
    )
    batch_size: Annotated[int, Range(1, ROWS_OF_BATCH_MAX)] = Field(default=256, description="rows of a batch")
    workers: Processes = Field(default=2, description="processes that draw views; 0 draws in this one")
    worker_start: WorkerStart = Field(default=DEFAULT_START, description="how these processes begin")
    device: str = Field(default="", description="cpu, cuda, cuda:1, mps; an accelerator where there is one")
    accept_drift: bool = Field(default=False, description="accept replays that are a few levels off")
    html: str = Field(default="", description="write the report to this file: one page, no network")
    pictures: Annotated[int, Range(0, 256)] = Field(
        default=0, description="pictures in the report of rows that flipped; they leave this machine with it"
    )
