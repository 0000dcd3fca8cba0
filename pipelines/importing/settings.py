"""Settings of `kdcache import`. No torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from kdcache.base.limits import CLASSES_MAX, SEQUENCE_MAX
from kdcache.base.ranges import Range
from kdcache.base.setting_types import Precision

Layout = Literal["distillkit", "vllm"]


class ImportSettings(BaseModel):
    """Settings of `kdcache import`: facts that the files of a capture do not say, and the way they are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Annotated[int, Range(2, CLASSES_MAX)] | None = Field(
        default=None, description="size of the vocabulary; default: what the files or the tokenizer say"
    )
    sequence: Annotated[int, Range(2, SEQUENCE_MAX)] | None = Field(
        default=None, description="tokens of a text, a power of two; default: the least that holds the longest row"
    )
    precision: Precision = Field(default="float32", description="dtype in which the teacher answered")
    tokenizer: str = Field(default="", description="tokenizer.json that made the ids; it joins the identity")
    compression: str = Field(
        default="", description="DistillKit's configuration; default: compression_config.yaml beside the files"
    )
    normalise: bool = Field(
        default=False, description="divide answers by their sum where their compression took it above 1"
    )
