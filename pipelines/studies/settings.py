"""Settings of `kdcache study`, as flags and in TOML. No torch."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kdcache.base.ranges import EPOCHS_MAX, Range
from kdcache.base.setting_types import Arguments

SEEDS = 8  # the fewest that the published verdicts stand on
FIRST_SEED = 1000  # protocols were tried on the seeds below


class StudySettings(BaseModel):
    """Settings of `kdcache study`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str = Field(default="", description="name of the study; without: list all")
    data: str = Field(default="", description="ask on this data set; default: Fashion-MNIST as Debian installs it")
    data_set: Arguments = Field(default={}, description="key=value of both its splits")
    train_set: Arguments = Field(default={}, description="key=value of its training split; default: split=train")
    val_set: Arguments = Field(default={}, description="key=value of its test split; default: split=test, or val")
    transform: str = Field(default="none", description="transform of every picture, for example center")
    transform_set: Arguments = Field(default={}, description="key=value for the transform, for example size=64")
    teacher: str = Field(default="", description="your teacher, as in extract; default: the study's own")
    teacher_set: Arguments = Field(default={}, description="key=value for the teacher")
    weights: str = Field(default="", description="weights of your teacher; without, the study trains it")
    student: str = Field(default="", description="your student, as in train; default: the study's own")
    student_set: Arguments = Field(default={}, description="key=value for the student")
    rows: Annotated[int, Range(0, 2**31)] = Field(
        default=0, description="rows that students learn from; 0: as the study says"
    )
    epochs: Annotated[int, Range(0, EPOCHS_MAX)] = Field(
        default=0, description="epochs of every student; 0: as the study says"
    )
    training: Arguments = Field(default={}, description="settings of every student's training, for example lr=0.01")
    seeds: Annotated[int, Range(2, 1000)] = Field(default=SEEDS, description="seeds of each arm; intervals need two")
    first_seed: Annotated[int, Range(0, 2**31)] = Field(default=FIRST_SEED, description="the first of them")
    folder: str = Field(default="studies", description="where teachers, stores, runs and verdicts are kept")
    jobs: Annotated[int, Range(1, 64)] = Field(default=1, description="processes that train, one thread each")
    toy: bool = Field(default=False, description="digits, two seeds, two epochs: does it run at all")
    commands: bool = Field(default=False, description="print the kdcache lines of every arm, and run none of them")
    page: str = Field(
        default="",
        description="write an overview (.md) of the folder's outcomes, and beside it a page a study; run none",
    )
    plot: bool = Field(default=True, description="draw the picture of the arms")
