"""The next commands after a stage, with the paths and settings of this call, so that they can be pasted."""

import shlex
from itertools import chain, count
from pathlib import Path

from kdcache.errors import KdcacheError
from kdcache.pipelines.command_lines import command_line
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.store.store import Store

STUDENT = "kdcache.networks:convnet"  # takes pictures of any size
VIEWS = 4  # of a transform that draws at random


def after_extracting(settings: ExtractSettings) -> list[str]:
    """Look at the store, and train a student on it."""
    commands = [shlex.join(["kdcache", "inspect", settings.store, "--rows", "5"])]
    try:
        store = Store.open(settings.store)
    except KdcacheError:  # another process may have taken it away
        return commands
    if unfinished := [one.views for one in store.segments if len(one.commits()) < one.layout.blocks]:
        return [command_line("extract", "store", settings.model_copy(update={"views": unfinished[0]}))]
    identity = store.identity
    if identity.dataset.sequence > 1:  # a student of tokens is the user's own
        return commands
    channels = len(identity.teacher.mean)
    own_transform = identity.plan.transform.text != ""
    student = TrainSettings(
        run=str(_free(Path("runs") / Path(settings.store).stem)),
        student=STUDENT,
        student_set={"channels": channels} if channels > 1 else {},
        data=settings.data,
        data_set=settings.data_set,
        labels=settings.labels,
        store=(settings.store,),
        transform=settings.transform if own_transform else "none",
        transform_set=settings.transform_set if own_transform else {},
    )
    return [*commands, command_line("train", "run", student)]


def after_training(settings: TrainSettings) -> list[str]:
    """Ask a teacher that was trained; or hold a student against its teacher's store of the validation split."""
    if not settings.store:
        teacher = ExtractSettings(
            store=str(_free(Path(f"{settings.run.rstrip('/')}.kd"))),
            teacher=f"run:{settings.run}",
            data=settings.data,
            data_set=settings.data_set,
            transform=settings.transform,
            transform_set=settings.transform_set,
            views="1" if settings.transform in ("none", "center") else str(VIEWS),  # type: ignore[arg-type]
        )
        return [command_line("extract", "store", teacher)]
    if not settings.val_store:
        return []
    from kdcache.pipelines.train.validating import validation_source

    data, data_set = validation_source(settings)
    comparison = CompareSettings(
        runs=(settings.run,),
        store=settings.val_store,
        data=data,
        data_set=data_set,
    )
    return [command_line("compare", "runs", comparison)]


def _free(path: Path) -> Path:
    """The path, or the first with a number where something stands there."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(place for place in chain([path], numbered) if not place.exists())
