"""A study runs as one stage: its bench is opened, its arms trained and measured, its claims judged, all of it kept."""

import resource
import time
from dataclasses import dataclass
from pathlib import Path

from kdcache.base.devices import default_device
from kdcache.base.folder_lock import held
from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.whole_files import make_folder
from kdcache.errors import InvalidInputError
from kdcache.pipelines.command_lines import command_line
from kdcache.pipelines.compare.stage import compare
from kdcache.pipelines.extract.fresh_server import shared_server
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.studies.bench import Bench
from kdcache.pipelines.studies.catalogue import STUDIES, load_study
from kdcache.pipelines.studies.outcome import Outcome, judged_claims, load, plain, save
from kdcache.pipelines.studies.pieces import Pieces, Stages
from kdcache.pipelines.studies.settings import StudySettings
from kdcache.pipelines.studies.study import Study, differences_on
from kdcache.pipelines.studies.study_data import StudyData, require_fashion
from kdcache.pipelines.train.together import train_together
from kdcache.views.provenance import provenance

STAGES = Stages(train_together, extract, compare)


@dataclass(frozen=True)
class Listed:
    """A study in the list: name, paper, the claim in a line, minutes on two cores, and its last verdict in a folder."""

    name: str
    row: int
    paper: str
    question: str
    minutes: float
    verdict: str


def list_studies(folder: Path) -> list[Listed]:
    """All studies, in the order of the papers."""
    rows = []
    for name in STUDIES:
        study, outcome = load_study(name), load(folder, name)
        verdict = "" if outcome is None else ("toy: " if outcome.toy else "") + outcome.verdict
        rows.append(Listed(name, study.row, study.paper, study.question, study.minutes, verdict))
    return rows


def commands_of(settings: StudySettings) -> list[str]:
    """The kdcache lines that make and measure every arm of a study; nothing is made."""
    study = load_study(settings.study)
    settings = usable(study, settings)
    data = StudyData.open(settings)
    require_enough(study, data)
    pieces = Pieces(Path(settings.folder), STAGES, data.digest, dry=True)
    study.run(Bench(settings, pieces, data))
    return ["export OMP_NUM_THREADS=1  # as the study does", *pieces.commands]


def run_study(settings: StudySettings, *, progress: Progress = silent, stop: StopRequest | None = None) -> Outcome:
    """Run a study, or go on with it: pieces that stand in its folder are taken as they are.

    Raises InvalidInputError for data or networks that it cannot use, before any work, and InterruptedRunError once
    `stop` is requested.
    """
    study = load_study(settings.study)
    settings, given = usable(study, settings), settings
    start, cpu = time.monotonic(), _cpu_seconds()
    folder = Path(settings.folder)
    data = StudyData.open(settings)
    require_enough(study, data)
    make_folder(folder)
    with held(folder), shared_server(train_together.__module__):
        pieces = Pieces(folder, STAGES, data.digest, settings.jobs, progress=progress, stop=stop or StopRequest())
        bench = Bench(settings, pieces, data)
        findings = study.run(bench)
        machine = provenance(default_device())
        differences = differences_on(study, data.title, teacher=settings.teacher, student=settings.student)
        outcome = Outcome(
            study=study.name, row=study.row, title=study.title, paper=study.paper, question=study.question,
            data=f"{data.train.name}: {len(data.train):,} rows, tested on {len(data.test):,}", seeds=bench.seeds,
            toy=settings.toy, baseline=study.baseline, measure=study.measure, arms=plain(findings.arms),
            claims=judged_claims(study, findings), differences=differences, notes=findings.notes,
            seconds=time.monotonic() - start, cpu_seconds=_cpu_seconds() - cpu + pieces.cpu_seconds, made=pieces.made,
            present=pieces.present, rows_asked=pieces.rows_asked, versions=machine.versions,
            device=f"{machine.device}, {machine.cpu_capability}",
            command=command_line("study", "study", given),
        )  # fmt: skip
        save(outcome, folder)
    return outcome


def usable(study: Study, settings: StudySettings) -> StudySettings:
    """The settings, with the study's own data where it has some. Raises InvalidInputError for data or networks of the
    user's own that it cannot ask its question of."""
    if settings.weights and not settings.teacher:
        raise InvalidInputError(f"--weights {settings.weights} is given and no --teacher; name the network they are of")
    if settings.teacher and study.own_teacher == "none":
        raise InvalidInputError(
            f"study {study.name} makes teachers of its own kind; leave out --teacher {settings.teacher}"
        )
    if settings.weights and study.own_teacher == "untrained":
        raise InvalidInputError(
            f"study {study.name} trains its teachers, for its claims are about them; leave out --weights "
            f"{settings.weights}, and give --teacher alone"
        )
    if settings.student and not study.own_student:
        raise InvalidInputError(
            f"study {study.name} needs students of its own kind; leave out --student {settings.student}"
        )

    sizes = {"--rows": settings.rows, "--epochs": settings.epochs}
    if not study.own_sizes and any(sizes.values()):
        flags = ", ".join(f"{flag} {value}" for flag, value in sizes.items() if value)
        raise InvalidInputError(f"study {study.name} varies rows and epochs itself; leave out {flags}")
    if study.draws and settings.transform != "none":
        raise InvalidInputError(
            f"study {study.name} draws views of its own; leave out --transform {settings.transform}, and give pictures "
            "that are of one size already"
        )
    if not study.data or (settings.data and study.reads_texts):
        return settings
    if settings.data:
        raise InvalidInputError(f"study {study.name} makes its own data; leave out --data {settings.data}")
    if study.needs_fashion:
        require_fashion()
    toy_set = study.toy_set if settings.toy else {}
    splits = {"train_set": {**study.train_set, **toy_set}, "val_set": {**study.val_set, **toy_set}}
    return settings.model_copy(update={"data": study.data, **splits})


def require_enough(study: Study, data: StudyData) -> None:
    """Raises InvalidInputError for a training split with fewer rows or classes than a study needs, and for texts where
    it looks at pictures."""
    if (data.train.sequence > 1) != study.reads_texts:
        kinds = ("texts", "pictures") if study.reads_texts else ("pictures", "texts")
        raise InvalidInputError(
            f"study {study.name} is of {kinds[0]}, and data {data.spec} holds {kinds[1]}; give it {kinds[0]}"
        )
    rows, classes = len(data.train.ids) - data.held_out_rows, data.train.classes
    if rows < study.fewest_rows and not data.toy:
        raise InvalidInputError(
            f"study {study.name} needs {study.fewest_rows:,} training rows; there are {rows:,}, and "
            f"{data.held_out_rows:,} more are held out"
        )
    if classes < study.fewest_classes:
        raise InvalidInputError(f"study {study.name} needs {study.fewest_classes} classes; the data have {classes}")


def _cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
