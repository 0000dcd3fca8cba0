"""Settings of the stages are frozen, have the same names as flags and in TOML, and refuse unknown names. No torch."""

from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdcache.base.cache_options import DEFAULT_GB, CacheOptions
from kdcache.base.ranges import EPOCHS_MAX, LARGE, ROWS_OF_BATCH_MAX, Range
from kdcache.base.records import explain
from kdcache.base.setting_types import (
    Arguments,
    BelowOne,
    Classes,
    Count,
    Deviations,
    Epochs,
    Keep,
    Means,
    Names,
    OptimizerName,
    Pace,
    Paths,
    Positive,
    Precision,
    Processes,
    Seed,
    SomeCount,
    SomeEpochs,
    SomePositive,
    SomeShare,
    SomeSubclasses,
    Subclasses,
    Temperature,
    Texts,
    Weights,
)
from kdcache.base.specs import parse_arguments, read_toml
from kdcache.base.view_span import ViewSpan, WrittenSpan
from kdcache.base.worker_start import DEFAULT_START, WorkerStart
from kdcache.errors import InvalidInputError
from kdcache.training.run_record import WEIGHTS
from kdcache.views.source_forms import LIST

WEIGHTS_TEXT = "safetensors or torch FILE to load into the teacher; FILE#KEY: one of its state dicts"

CACHE_GB: Any = Field(default=DEFAULT_GB, description="GB that each of these folders may take")

S = TypeVar("S", bound=BaseModel)


class Settings(BaseModel):
    """Settings that the extract and train stages share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(description=LIST)
    data_set: Arguments = Field(default={}, description="key=value for the data set, for example split=train")
    labels: Literal["data", "none"] = Field(
        default="data", description="the data's hard labels, or none: its labels mean something else"
    )
    transform: str = Field(
        default="none", description="none, light, imagenet, randaugment, trivialaugment, center, or module:callable"
    )
    transform_set: Arguments = Field(default={}, description="key=value for the transform, for example size=224")
    mix: Literal["none", "mixup", "cutmix"] = Field(default="none", description="mixing inside groups of 64")
    mix_alpha: Positive = Field(default=1.0, description="lambda is drawn from Beta(alpha, alpha)")
    seed: Seed = Field(default=0, description="seed of the order and of all that is random")
    mean: Means = Field(
        default=(), description="input mean by channel; default: a teacher's own, else ImageNet's or 0.5"
    )
    std: Deviations = Field(default=(), description="input standard deviation by channel")
    workers: Processes = Field(default=2, description="processes that draw views; 0 draws in this one")
    worker_start: WorkerStart = Field(default=DEFAULT_START, description="how these processes begin")
    device: str = Field(default="", description="cpu, cuda, cuda:1, mps; an accelerator where there is one")
    precision: Precision = Field(default="float32", description="autocast dtype of the network; heads stay float32")


class ExtractSettings(Settings):
    """Settings of `kdcache extract`."""

    store: str = Field(description="folder of the store")
    teacher: str = Field(
        description="torchvision:NAME, timm:NAME, transformers:FOLDER, module:callable, file.py:callable, or "
        "run:FOLDER[@best|last|epoch-N]"
    )
    teacher_set: Arguments = Field(
        default={}, description="key=value for the teacher, for example weights=IMAGENET1K_V2"
    )
    weights: str = Field(default="", description=WEIGHTS_TEXT)
    class_map: str = Field(
        default="", description="file of lines TEACHER = DATA: the data's class of a teacher's, by name or number"
    )
    teacher_answers: Literal["logits", "probs"] | None = Field(
        default=None, description="probs: it ends in a softmax; default: logits, or what the store has"
    )
    mask_classes: Classes = Field(default=(), description="classes that count as absent, for example 3,17")
    subclasses: Subclasses = Field(
        default=1, description="logits that the teacher answers for each class, summed for hard labels; a run's own"
    )
    views: WrittenSpan = Field(
        default=ViewSpan(0, 1, is_count=True),
        description="how many the store is to have, of which those that lack are added; or a range such as 10:20",
    )
    order: Literal["shuffled", "given"] = Field(default="shuffled", description="order of positions")
    encoding: str = Field(default="auto", description="topk, full, sampled, or auto: full where top-k keeps all")
    top_k: Count = Field(default=10, description="classes kept of each row")
    quantisation: Literal["default", "high"] = Field(default="default", description="steps of 1/16 or 1/64 nat")
    packing: Literal["auto", "residuals", "plain"] = Field(
        default="auto",
        description="gaps by rank and tail as residuals, or both plain; auto: the store's, else residuals",
    )
    draws: SomeCount = Field(default=None, description="ids drawn of each row, of --encoding sampled")
    draw_temperature: SomePositive = Field(
        default=None, description="T at which they are drawn, and served alone; default 1"
    )
    keep: Keep = Field(
        default=(),
        description="features, head, stages, tap:LAYER, tap:LAYER@HxW: pooled features, the classifier, every stage "
        "pooled, a layer's output, or that pooled (kdcache taps lists layers)",
    )
    batch_size: Annotated[int, Range(64, ROWS_OF_BATCH_MAX)] = Field(
        default=256, description="rows of a teacher batch, a multiple of 64; on a CPU every forward has 16 rows"
    )
    min_accuracy: SomeShare = Field(default=None, description="accept this top-1 on clean rows; default twice chance")
    on_bad_sample: Literal["refuse", "strike"] = Field(
        default="refuse", description="a sample that cannot be read: stop, or leave it without an answer and go on"
    )
    parents: Names = Field(default=(), description="content ids of stores that this teacher was distilled from")
    seal: bool = Field(default=True, description="seal the store once it is whole")
    fill_view_cache: str = Field(default="", description="folder in which the views are kept for train --view-cache")
    view_cache_gb: Positive = CACHE_GB
    engine: Literal["local", "dask"] = Field(default="local", description="this process, or Dask: many, and machines")
    scheduler: str = Field(default="", description="address of a running Dask scheduler, such as tcp://HOST:8786")
    dask_workers: Processes = Field(
        default=0, description="Dask's processes on this machine; 0: one a GPU, else one a core, up to 8"
    )
    dashboard: str = Field(default="127.0.0.1:8787", description="where Dask's dashboard listens; empty: nowhere")


AUTO = "auto"
LATER = frozenset(
    {"labels", "val_epochs", "trust", "curriculum", "select_set", "select_steps", "select_rate", "subclasses"}
    | {"view_cache", "decoded_cache", "view_cache_gb"}
    | {"optimizer_set", "clip_grad", "accumulate", "compile"}
)  # settings that records on disk may lack; at their default they are left out


class TrainSettings(Settings):
    """Settings of `kdcache train`."""

    run: str = Field(description="folder of the run")
    student: str = Field(
        description="torchvision:NAME, timm:NAME, transformers:FOLDER, module:callable or file.py:callable"
    )
    student_set: Arguments = Field(default={}, description="key=value for the student")
    weights: str = Field(default="", description="weights that the student starts from: FILE or FILE#KEY")
    store: Paths = Field(
        default=(),
        description="store of soft labels, a folder or http(s) address; repeated: an ensemble; without: plain training",
    )
    val_data: str = Field(default="", description="validation data of its own; default: --data, with --val-set")
    val_set: Arguments = Field(default={}, description="key=value that select the validation split, such as split=test")
    val_transform: str = Field(
        default=AUTO,
        description="transform of validation images; auto: resize and centre crop of a folder's pictures to the size "
        "that training crops to, else none",
    )
    val_transform_set: Arguments = Field(default={}, description="key=value for the validation transform")
    val_store: Paths = Field(
        default=(),
        description="store of the validation split: agreement and KL; several, repeated, are one by --combine",
    )
    val_epochs: Annotated[int, Range(0, EPOCHS_MAX)] = Field(
        default=1, description="validate each so many epochs and after the last; 0: after the last alone"
    )
    objective: str = Field(default="", description="see `kdcache objectives`; kd where there is a store")
    set: Arguments = Field(
        default={}, description="key=value for the objective, for example alpha=1, w_ce=1, label_smoothing=0.1"
    )
    temperature: Temperature | None = Field(default=None, description="a number, or calibrated; the objective's own")
    calibration_store: str = Field(default="", description="held-out store for calibrated; --val-store by default")
    subclasses: SomeSubclasses = Field(
        default=None,
        description="logits that the student answers for each class, summed for hard labels; default: the store's, "
        "else 1; 1 learns from a store's classes",
    )
    trust: str = Field(
        default="", description="held-out store that weighs hard labels against the teacher by class, for w_ce and w_kd"
    )
    curriculum: Pace = Field(
        default="",
        description="EPOCHS or EPOCHS:START: the share of easiest rows that count grows from START (0.2) to all",
    )
    select_set: Arguments = Field(
        default={},
        description="key=value that select held-out rows of the data, such as range=50000:51000: the drop of the loss "
        "on them switches terms of the objective on and off",
    )
    select_steps: Annotated[int, Range(1, ROWS_OF_BATCH_MAX)] = Field(
        default=10, description="steps until terms are selected anew"
    )
    select_rate: Annotated[float, Range(0.0, LARGE)] = Field(
        default=0.1, description="by which their selection learns; 0: at random"
    )
    over_epochs: Arguments = Field(
        default={}, description="w_ce, w_kd or a setting as EPOCH:VALUE,..., for example w_kd=0:0.9,30:0.1"
    )
    kd_epochs: SomeEpochs = Field(default=None, description="plain cross-entropy from this epoch on")
    then: Texts = Field(default=(), description="EPOCH:NAME,key=value,...: another objective from that epoch on")
    tail: Literal["uniform", "class-mean", "ghost", "none"] = Field(
        default="uniform", description="shape of what lies outside the top k"
    )
    top_k: SomeCount = Field(default=None, description="use fewer classes than the store keeps")
    combine: Literal["probabilities", "logits", "predictions", "losses"] = Field(
        default="probabilities", description="what of an ensemble is averaged"
    )
    ensemble_weights: Weights = Field(default=(), description="weight of each store, equal by default")
    views: WrittenSpan | None = Field(
        default=None, description="views to cycle through, such as 10 or 10:20; all by default"
    )
    epochs: Annotated[int, Range(1, EPOCHS_MAX)] = Field(default=10, description="epoch e uses view e mod V")
    batch_size: Annotated[int, Range(2, ROWS_OF_BATCH_MAX)] = Field(default=128, description="rows of a batch")
    optimizer: OptimizerName = Field(
        default="sgd", description="sgd with Nesterov momentum, adamw, or module:callable, file.py:callable"
    )
    optimizer_set: Arguments = Field(default={}, description="key=value for an optimiser of your own")
    lr: Annotated[float, Range(0.0, 1e30, above=True)] = Field(default=0.1, description="peak learning rate")
    momentum: BelowOne = Field(default=0.9, description="of SGD")
    weight_decay: Annotated[float, Range(0.0, LARGE)] = Field(default=5e-4, description="L2 of SGD, decoupled in AdamW")
    schedule: Literal["cosine", "step", "constant"] = Field(default="cosine", description="after the warm-up")
    step_epochs: Epochs = Field(default=(), description="epochs after which the step schedule lowers the rate")
    step_factor: Positive = Field(default=0.1, description="by which it lowers it")
    warmup_epochs: Annotated[float, Range(0.0, float(EPOCHS_MAX))] = Field(default=0.0, description="linear from 0")
    clip_grad: Annotated[float, Range(0.0, LARGE)] = Field(
        default=0.0, description="largest norm of a step's gradient, all parameters together; 0: any"
    )
    accumulate: Annotated[int, Range(1, ROWS_OF_BATCH_MAX)] = Field(
        default=1, description="parts in which a batch passes the student, whose gradients add up: less memory"
    )
    compile: bool = Field(default=False, description="compile the student with torch.compile")
    ema: BelowOne = Field(default=0.0, description="decay of averaged weights, which are then validated; 0: off")
    keep_epochs: Epochs = Field(default=(), description="also keep the weights after so many epochs, such as 5,10,20")
    checkpoint_steps: Annotated[int, Range(0, ROWS_OF_BATCH_MAX)] = Field(
        default=0, description="also save after so many steps; 0: after each epoch"
    )
    memory_gb: Positive = Field(default=4.0, description="memory for soft labels; above it blocks are shuffled")
    view_cache: str = Field(default="", description="folder in which views are kept, so that they are drawn once")
    decoded_cache: str = Field(default="", description="folder in which decoded pictures are kept, for views too many")
    view_cache_gb: Positive = CACHE_GB
    accept_drift: bool = Field(default=False, description="accept replays that are a few levels off")

    def as_recorded(self, *, without: Collection[str]) -> dict[str, Any]:
        """The settings as they stand in records, as those from before newer settings were written."""
        unsaid = {name for name in LATER if getattr(self, name) == TrainSettings.model_fields[name].default}
        record = self.model_dump(mode="json", exclude={*without, *unsaid})
        return {**record, "val_transform": "none" if self.val_transform == AUTO else self.val_transform}

    @property
    def caches(self) -> CacheOptions:
        """Where pixels are cached."""
        return CacheOptions(self.view_cache, self.decoded_cache, self.view_cache_gb)

    @property
    def validates(self) -> bool:
        """True where a validation split is named."""
        return bool(self.val_data or self.val_set or self.val_store)

    def is_validated(self, epoch: int) -> bool:
        """True for an epoch, counted from 0, after which the validation split is measured."""
        every = self.val_epochs
        is_due = epoch + 1 >= self.epochs or (every > 0 and (epoch + 1) % every == 0)
        return self.validates and is_due


def load_settings(model: type[S], flags: dict[str, Any], config: str | None) -> S:
    """Settings from a TOML file; flags win over it. Raises InvalidInputError, which lists the known names."""
    values: dict[str, Any] = {}
    if config is not None:
        values = read_toml(config, "config")
    for name in WEIGHTS if "set" in model.model_fields else ():
        if name in flags:
            raise moved_weight(f"--{name.replace('_', '-')}", f"--set {name}={flags[name]}")
        if name in values:
            raise moved_weight(f"config {config}: {name}", f"set.{name} = {values[name]}")
    for name, value in flags.items():
        is_merged = isinstance(values.get(name), dict) and isinstance(value, list)
        values[name] = {**values[name], **parse_arguments(value, name)} if is_merged else value
    if unknown_names := sorted(values.keys() - model.model_fields.keys()):
        known_names = ", ".join(sorted(model.model_fields))
        raise InvalidInputError(f"unknown settings {', '.join(unknown_names)}; the known ones are {known_names}")
    try:
        return model(**values)
    except ValidationError as error:
        raise InvalidInputError(explain(error)) from error


def moved_weight(old: str, new: str) -> InvalidInputError:
    """The error for a weight of the objective that is given as a setting of train: `old` as written, `new` instead."""
    return InvalidInputError(f"{old} is now a setting of the objective: give {new}")
