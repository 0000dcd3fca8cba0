"""Stage two trains students on replayed views and cached soft labels; without a store, plainly."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import torch

from kdcache.base.progress import Activity, Progress, StopRequest, silent
from kdcache.networks.answers import answered
from kdcache.networks.out_of_memory import naming_memory
from kdcache.networks.precision import autocast
from kdcache.objectives.batch import Batch
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.caching import cache_notes, cache_text
from kdcache.pipelines.train.epoch_end import Announce, unannounced
from kdcache.pipelines.train.fitting import fit_objective
from kdcache.pipelines.train.isolation import Isolation, NoIsolation
from kdcache.pipelines.train.prepare import Loaders, make_student, open_inputs, open_loaders, open_run
from kdcache.pipelines.train.run import Run
from kdcache.pipelines.train.selecting import select_terms
from kdcache.pipelines.train.subclasses import student_subclasses
from kdcache.pipelines.train.summary import TrainSummary
from kdcache.pipelines.train.validating import judged_as
from kdcache.training.batch_stream import BatchStream
from kdcache.training.metrics import Validation
from kdcache.training.process_group import open_ranks, own_device
from kdcache.training.ranks import Ranks

TRAINING = Activity("training", "steps")
RESUME = "the checkpoint is written; run the same command again to go on"


def train(
    settings: TrainSettings,
    *,
    progress: Progress = silent,
    stop: StopRequest | None = None,
    announce: Announce = unannounced,
    tell: Callable[[str], None] | None = None,
) -> TrainSummary:
    """A run trains a student, or goes on where it stopped; a killed run ends equal to one that was not.

    Args:
        settings: A field for each option of `kdcache train`.
        progress: A callable that hears of the work that is done.
        stop: A request to stop, which may be made meanwhile.
        announce: A callable that is told of each epoch that ends.
        tell: A callable that is told the costs and gains of a cache of views before the first epoch.

    Raises MismatchError for a store that does not fit or a run of other settings, ReplayError at the first row whose
    pixels are not those the teacher saw, InterruptedRunError once `stop` is requested and the checkpoint is written.

    Examples:
        >>> from kdcache.pipelines.settings import TrainSettings
        >>> settings = TrainSettings(
        ...     run="runs/student", data="digits", data_set={"limit": 300}, store=("digits.kd",),
        ...     student="kdcache.networks:mlp", student_set={"inputs": 64},
        ...     epochs=1, batch_size=64, workers=0,
        ... )
        >>> train(settings).steps
        5
    """
    with naming_memory(*memory_words(settings)), open_ranks(own_device(settings.device)) as ranks, ExitStack() as stack:
        inputs = ranks.together(lambda: open_inputs(settings, ranks, progress if ranks.first else silent))
        student = ranks.together(lambda: make_student(settings, inputs))
        loaders = ranks.together(lambda: open_loaders(settings, inputs, [student.objective]))
        stack.callback(loaders.close)
        run = open_run(student, inputs, loaders, stack)
        run.announce = announce
        if tell is not None and ranks.first and (text := cache_text(settings, loaders.training)):
            tell(text)
        serve([run], loaders, NoIsolation(), progress=progress, stop=stop or StopRequest(), ranks=ranks)
        run.notes += cache_notes(loaders.training)
        return run.summary()


def memory_words(settings: TrainSettings) -> tuple[str, str]:
    """The problem and the next step where memory runs out in a training, as `naming_memory` takes them."""
    rows = settings.batch_size
    smaller = f"give --batch-size {rows // 2} or --precision bfloat16" if rows > 3 else "use a smaller student"
    kept = "a run that has a checkpoint keeps its settings, so begin another beside it"
    return f"{settings.run} ran out of memory with batches of {rows} rows", f"{smaller}; {kept}"


def serve(
    runs: Sequence[Run],
    loaders: Loaders,
    isolation: Isolation,
    *,
    progress: Progress,
    stop: StopRequest,
    ranks: Ranks | None = None,
) -> None:
    """Hand each batch of one stream to all runs. The stream begins where the run that is least far stands; every other
    run joins where its own checkpoint stands. `ranks`: the processes that take the steps together, by default this one.

    Raises InterruptedRunError once `stop` is requested and every run has written its checkpoint.
    """
    loader, ranks = loaders.training, ranks or Ranks()
    stop, progress = ranks.stopping(stop), progress if ranks.first else silent
    _judge([run for run in runs if run.unjudged is not None], loaders, isolation, ranks)
    for run in filter(isolation.active, runs):
        with isolation.turn(run):
            run.look_at_weights()
            if run.is_new:
                fit_objective(run, loader, stop)
    held_out = ranks.together(loaders.held_out_batches)
    start_time = time.monotonic()
    for batch in _batches_from(loader, min(run.start for run in runs), ranks, stop):
        active_runs = [run for run in runs if isolation.active(run) and run.start <= (batch.epoch, batch.step)]
        if not active_runs:  # the runs that had joined have failed; the others begin further on
            break
        for run in active_runs:
            with isolation.turn(run):
                select_terms(run, held_out)
                run.step(isolation.batch(run, batch))
        lead_run = max(active_runs, key=lambda run: run.steps_done)
        progress(TRAINING, lead_run.steps_done, lead_run.steps_total)
        active_runs = list(filter(isolation.active, active_runs))
        if batch.step + 1 == loader.steps(batch.epoch):
            _end_epoch(active_runs, loaders, isolation, ranks, batch.epoch, start_time)
            start_time = time.monotonic()
        else:
            _save(active_runs, isolation, batch, at_once=stop.requested)
        stop.check(RESUME)
    else:  # the stream has ended
        ranks.agree()  # wait until the first process has written the last epoch
        return
    if remaining_runs := list(filter(isolation.active, runs)):
        serve(remaining_runs, loaders, isolation, progress=progress, stop=stop, ranks=ranks)


def _batches_from(loader: BatchStream, start: tuple[int, int], ranks: Ranks, stop: StopRequest) -> Iterator[Batch]:
    """The batches from an epoch and step on, to the end of the training."""
    epoch, step = start
    loader.load_state_dict(loader.state_dict() | {"epoch": epoch, "step": step})
    for _ in range(epoch, loader.epochs):
        yield from ranks.each(loader, stop)


def _end_epoch(
    runs: list[Run], loaders: Loaders, isolation: Isolation, ranks: Ranks, epoch: int, start_time: float
) -> None:
    for run in runs:
        with isolation.turn(run):
            run.end_epoch(epoch, time.monotonic() - start_time)
    _judge(list(filter(isolation.active, runs)), loaders, isolation, ranks)


def _judge(runs: list[Run], loaders: Loaders, isolation: Isolation, ranks: Ranks) -> None:
    """Validate runs whose epoch has ended, where that is due, and let them write its metrics and weights."""
    start_time = time.monotonic()
    due = [run for run in runs if run.is_to_be_validated]
    measures = validate(due, loaders.validating, isolation, ranks) if due else {}
    for run in filter(isolation.active, runs):
        with isolation.turn(run):
            run.judge(measures.get(run, {}), time.monotonic() - start_time)


def _save(runs: list[Run], isolation: Isolation, batch: Batch, *, at_once: bool) -> None:
    for run in runs:
        interval = run.settings.checkpoint_steps
        if at_once or (interval and run.steps_done % interval == 0):
            with isolation.turn(run):
                run.save(batch.epoch, batch.step + 1)


def validate(
    runs: Sequence[Run], loader: BatchStream | None, isolation: Isolation, ranks: Ranks
) -> dict[Run, dict[str, float]]:
    """The measures of each run over the validation split, in eval mode and one pass; empty where there is no split."""
    if loader is None:
        return {}
    validations = {
        run: Validation(
            *judged_as(run.settings),
            subclasses=student_subclasses(run.settings, run.loader.stores),
            token_bytes=loader.data.vocabulary.token_bytes,
        )
        for run in runs
    }
    for run in runs:
        ranks.align_buffers(run.eval_network)
        run.eval_network.eval()
    ranks.together(lambda: _measure(validations, loader, isolation))
    for run in runs:
        run.eval_network.train()
    return {run: validation.results(ranks) for run, validation in validations.items()}


def _measure(validations: dict[Run, Validation], loader: BatchStream, isolation: Isolation) -> None:
    loader.set_epoch(0)  # every pass sees the same views in the same order
    with torch.inference_mode():
        for batch in loader:
            for run in filter(isolation.active, validations) if len(batch.positions) else ():
                with isolation.turn(run), autocast(run.settings.precision, loader.device):
                    output = run.eval_network(isolation.images(run, batch))
                    validations[run].update(answered(output, batch.images, "student").float(), batch)
