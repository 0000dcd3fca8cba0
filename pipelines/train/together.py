"""Many students from one pass: each batch is drawn, decoded and augmented once, its soft labels gathered once.

Every student has its own network, objective, optimiser, generators and folder, and ends as if it had been alone: on a
CPU with equal bits. What costs once is the loader; what costs each time is the student's own step.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.errors import InterruptedRunError
from kdcache.labels.soft_labels import SoftLabels, TopKLabels
from kdcache.objectives.batch import Batch
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.prepare import Inputs, Loaders, Student, make_student, open_inputs, open_loaders, open_run
from kdcache.pipelines.train.run import Run, TrainSummary
from kdcache.pipelines.train.shared_settings import require_shared
from kdcache.pipelines.train.stage import serve
from kdcache.training.generators import Generators

"""Settings that decide which batches there are, in what order, and where."""


@dataclass(frozen=True)
class Outcome:
    """How one run of several ended: with a summary, or with the error that it alone met."""

    settings: TrainSettings
    summary: TrainSummary | None = None
    error: Exception | None = None


def train_together(
    settings: Sequence[TrainSettings], *, progress: Progress = silent, stop: StopRequest | None = None
) -> list[Outcome]:
    """Train several students side by side, or go on with those that are there, each from where its checkpoint stands.

    A student that fails (its settings, its code, a loss that is not finite) fails alone; what all of them need fails
    all that are left. Raises as `require_shared` does, and InterruptedRunError once `stop` is requested and the
    checkpoints are written.
    """
    require_shared(settings)
    group = Group()
    runs: dict[str, Run] = {}
    try:
        inputs = open_inputs(settings[0])
        students = [made for each in settings if (made := group.student(each, inputs)) is not None]
        with ExitStack() as held:
            if students:
                loaders = open_loaders(common(students), inputs)
                runs = {made.settings.run: run for made in students if (run := group.seat(made, inputs, loaders, held))}
            if runs:
                serve(list(runs.values()), loaders, group, progress=progress, stop=stop or StopRequest())
    except InterruptedRunError:
        raise
    except Exception as error:  # noqa: BLE001  what all runs share has failed: a store, a row, a loader's process
        for each in settings:
            group.errors.setdefault(each.run, error)
    return [
        Outcome(each, error=group.errors[each.run])
        if each.run in group.errors
        else Outcome(each, summary=runs[each.run].summary())
        for each in settings
    ]


def common(students: Sequence[Student]) -> TrainSettings:
    """Settings of the loader that serves these students: the k and the class means that suit all of them."""
    each = [student.settings for student in students]
    top_k = each[0].top_k if len({one.top_k for one in each}) == 1 else None
    tail = "class-mean" if any(one.tail == "class-mean" for one in each) else "uniform"
    return each[0].model_copy(update={"top_k": top_k, "tail": tail})


class Group:
    """Keeps the runs of one stream apart: own generators, own images, own soft labels, own failure (by run folder)."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        self._generators: dict[str, Generators] = {}
        self._batch: Batch | None = None
        self._labels: dict[Any, tuple[SoftLabels, ...]] = {}

    def student(self, settings: TrainSettings, inputs: Inputs) -> Student | None:
        """The student of some settings, its generators as a run of its own would have them; None where it fails."""
        made = None
        with self._alone(settings.run):
            made = make_student(settings, inputs)
            self._generators[settings.run] = Generators()
        return made

    def seat(self, student: Student, inputs: Inputs, loaders: Loaders, held: ExitStack) -> Run | None:
        """The run of a student, its folder claimed and held; None where it fails."""
        name, run = student.settings.run, None
        with self._alone(name), self._generators[name].turn():
            run = open_run(student, inputs, loaders, held)
        return run  # noqa: RET504  None where it failed

    def going(self, run: Run) -> bool:
        return run.settings.run not in self.errors

    @contextmanager
    def turn(self, run: Run) -> Iterator[None]:
        with self._alone(run.settings.run), self._generators[run.settings.run].turn():
            yield

    def images(self, run: Run, batch: Batch) -> Tensor:
        return batch.images.clone()  # a network may work in place on its input

    def batch(self, run: Run, batch: Batch) -> Batch:
        return replace(batch, images=batch.images.clone(), teachers=self._teachers(run.settings, batch))

    def _teachers(self, settings: TrainSettings, batch: Batch) -> tuple[SoftLabels, ...]:
        if batch is not self._batch:
            self._batch, self._labels = batch, {}
        means = settings.tail == "class-mean"
        key = (settings.top_k, means)
        if key not in self._labels:
            self._labels[key] = tuple(_as_asked(soft, settings.top_k, means) for soft in batch.teachers)
        return self._labels[key]

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Note whatever goes wrong as this run's error."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  a student is its user's code, which may raise anything
            self.errors[name] = error


def _as_asked(soft: SoftLabels, top_k: int | None, means: bool) -> SoftLabels:
    """Soft labels as a loader of one run gives them. On a CPU by numpy, as there: torch sums in another order."""
    if top_k is not None and not (isinstance(soft, TopKLabels) and soft.k == top_k):
        soft = _numpy(soft).prefix(top_k).torch() if soft.logits.device.type == "cpu" else soft.prefix(top_k)
    return soft if means or not isinstance(soft, TopKLabels) else replace(soft, class_means=None)


def _numpy(soft: SoftLabels) -> SoftLabels:
    """The same rows as numpy arrays."""
    arrays: dict[str, Any] = {name: value.numpy() for name, value in vars(soft).items() if isinstance(value, Tensor)}
    return replace(soft, **arrays)
