"""Many students learn from one stream: a batch is drawn, decoded and augmented once, its soft labels gathered once.

Every student has its own network, objective, optimiser, generators and folder, and ends as if it had been alone: on a
CPU with equal bits. The loader costs once; a student's step costs every time.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.user_code import exception_text, user_error
from kdcache.errors import InterruptedRunError, InvalidInputError
from kdcache.labels.soft_labels import SoftLabels
from kdcache.networks.out_of_memory import naming_memory
from kdcache.objectives.batch import Batch
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.caching import cache_notes
from kdcache.pipelines.train.prepare import Inputs, Loaders, make_student, open_inputs, open_loaders, open_run
from kdcache.pipelines.train.run import Run
from kdcache.pipelines.train.shared_settings import require_shared
from kdcache.pipelines.train.stage import memory_words, serve
from kdcache.pipelines.train.summary import TrainSummary
from kdcache.pipelines.train.training_state import Student
from kdcache.training.generators import Generators


@dataclass(frozen=True)
class Outcome:
    """The outcome of one run of several: its summary, or the error that it alone met."""

    settings: TrainSettings
    summary: TrainSummary | None = None
    error: Exception | None = None


def train_together(
    settings: Sequence[TrainSettings], *, progress: Progress = silent, stop: StopRequest | None = None
) -> list[Outcome]:
    """Train several students side by side; a run whose folder stands already goes on from its checkpoint.

    A student that fails (its settings, its code, a loss that is not finite) fails alone. Where something fails that all
    students need, all remaining ones fail. Raises as `require_shared` does, and InterruptedRunError once `stop` is
    requested and the checkpoints are written.
    """
    require_shared(settings)
    isolation = GroupIsolation()
    runs: dict[str, Run] = {}
    try:
        inputs = open_inputs(settings[0])
        students = list(filter(None, (isolation.make_student(run_settings, inputs) for run_settings in settings)))
        with ExitStack() as stack:
            if students:
                loaders = open_loaders(common_settings(students), inputs, [student.objective for student in students])
                stack.callback(loaders.close)
                open_runs = filter(None, (isolation.open_run(student, inputs, loaders, stack) for student in students))
                runs = {run.settings.run: run for run in open_runs}
            if runs:
                serve(list(runs.values()), loaders, isolation, progress=progress, stop=stop or StopRequest())
                for run in runs.values():
                    run.notes += cache_notes(loaders.training)
    except InterruptedRunError:
        raise
    except Exception as error:  # noqa: BLE001  something that all runs share has failed: a store, a row, a loader's process
        for run_settings in settings:
            isolation.errors.setdefault(run_settings.run, error)
    return [
        Outcome(run_settings, error=isolation.errors[run_settings.run])
        if run_settings.run in isolation.errors
        else Outcome(run_settings, summary=runs[run_settings.run].summary())
        for run_settings in settings
    ]


def common_settings(students: Sequence[Student]) -> TrainSettings:
    """Settings of the loader that serves these students: the k and the class means that suit all of them."""
    first = students[0].settings
    top_k = first.top_k if len({student.settings.top_k for student in students}) == 1 else None
    tail = "class-mean" if any(student.settings.tail == "class-mean" for student in students) else "uniform"
    return first.model_copy(update={"top_k": top_k, "tail": tail})


class GroupIsolation:
    """The isolation of several runs: each has its own generators, images, soft labels and error, by its folder."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        self._generators: dict[str, Generators] = {}
        self._batch: Batch | None = None
        self._labels: dict[Any, tuple[SoftLabels, ...]] = {}

    def make_student(self, settings: TrainSettings, inputs: Inputs) -> Student | None:
        """Make a student and note its generators' state, as a run on its own has it; None where that fails."""
        student = None
        with self._noting_error(settings):
            student = make_student(settings, inputs)
            self._generators[settings.run] = Generators()
        return student

    def open_run(self, student: Student, inputs: Inputs, loaders: Loaders, stack: ExitStack) -> Run | None:
        """Open a student's run, its folder claimed while `stack` is open; None where that fails."""
        run = None
        with self._noting_error(student.settings), self._generators[student.settings.run].turn():
            run = open_run(student, inputs, loaders, stack)
        return run  # noqa: RET504  None where it failed

    def active(self, run: Run) -> bool:
        return run.settings.run not in self.errors

    @contextmanager
    def turn(self, run: Run) -> Iterator[None]:
        with self._noting_error(run.settings), self._generators[run.settings.run].turn():
            yield

    def images(self, run: Run, batch: Batch) -> Tensor:
        return batch.images.clone()  # a network may work in place on its input

    def batch(self, run: Run, batch: Batch) -> Batch:
        return replace(batch, images=batch.images.clone(), teachers=self._teachers(run.settings, batch))

    def _teachers(self, settings: TrainSettings, batch: Batch) -> tuple[SoftLabels, ...]:
        if batch is not self._batch:
            self._batch, self._labels = batch, {}
        class_means = settings.tail == "class-mean"
        key = (settings.top_k, class_means)
        if key not in self._labels:
            self._labels[key] = tuple(_as_for_one(labels, settings.top_k, class_means) for labels in batch.teachers)
        return self._labels[key]

    @contextmanager
    def _noting_error(self, settings: TrainSettings) -> Iterator[None]:
        """Note an exception as the error of this run, and go on."""
        try:
            with naming_memory(*memory_words(settings)):
                yield
        except Exception as error:  # noqa: BLE001  a student is its user's code, which may raise anything
            self.errors[settings.run] = error
        except SystemExit as error:
            self.errors[settings.run] = user_error(error) or InvalidInputError(exception_text(error))


def _as_for_one(labels: SoftLabels, top_k: int | None, class_means: bool) -> SoftLabels:
    """Soft labels as the loader of one run gives them. On a CPU by numpy, like that loader: torch sums otherwise."""
    if top_k is not None:
        on_cpu = labels.logits.device.type == "cpu"
        labels = labels.map(Tensor.numpy).prefix(top_k).to() if on_cpu else labels.prefix(top_k)
    return labels if class_means else labels.with_class_means(None)
