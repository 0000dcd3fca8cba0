"""Settings of `kdcache taps`, as flags and in TOML. No torch."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kdcache.base.limits import CLASSES_MAX
from kdcache.base.ranges import Range
from kdcache.base.setting_types import Arguments
from kdcache.pipelines.settings import WEIGHTS_TEXT


class TapsSettings(BaseModel):
    """Settings of `kdcache taps`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str = Field(
        description="torchvision:NAME, timm:NAME, transformers:FOLDER, module:callable, file.py:callable, run:FOLDER"
    )
    teacher_set: Arguments = Field(default={}, description="key=value for the network")
    weights: str = Field(default="", description=WEIGHTS_TEXT)
    classes: Annotated[int, Range(0, CLASSES_MAX)] = Field(default=0, description="classes of it; 0: its own number")
    size: Annotated[int, Range(1, 10_000)] | None = Field(
        default=None, description="height and width of an image; default: the network's own, else 224"
    )
    channels: Annotated[int, Range(1, 1000)] = Field(default=3, description="channels of an image")
    data: str = Field(default="", description="take the size from this data set's views instead")
    data_set: Arguments = Field(default={}, description="key=value for the data set")
    transform: str = Field(default="none", description="the transform of its views")
    transform_set: Arguments = Field(default={}, description="key=value for the transform")
