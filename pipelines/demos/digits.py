"""The demo does the main job on real data in half a minute: a teacher, its store, a student with it and one without."""

from pathlib import Path
from typing import Any

from kdcache.base.progress import Progress, silent
from kdcache.base.records import Record
from kdcache.errors import InvalidInputError
from kdcache.pipelines.demos.named import renamed, with_seconds
from kdcache.pipelines.extract.report import ExtractSummary
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.train.summary import TrainSummary

VIEWS = 10
TEACHER_EPOCHS, STUDENT_EPOCHS = 10, 20
STUDENT_WIDTH = (
    4  # students of this width and seeds 0 to 4 are right on 95.2 % with the store and on 93.8 % alone (means)
)


class DemoRow(Record):
    """One line of the demo's table; accuracy and agreement on the 359 test digits, seconds for the stage."""

    what: str
    accuracy: float | None
    agreement: float | None
    seconds: float


class DemoSummary(Record):
    """The summary that `kdcache demo` prints at its end."""

    rows: tuple[DemoRow, ...]
    bytes_a_row: float
    store: str
    content_id: str | None


def demo(folder: Path, *, progress: Progress = silent) -> DemoSummary:
    """Train a teacher, extract, and train two students, on scikit-learn's digits; afterwards all lies in `folder`.

    Raises InvalidInputError where the folder holds something else; an interrupted demo goes on.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "teacher").exists():
        raise InvalidInputError(f"{folder} is not empty; choose another folder for the demo")
    train_data = {"data": "digits", "transform": "light", "transform_set": {"padding": 1, "flip": 0.0}, "workers": 0}
    test_data = {"data": "digits", "data_set": {"split": "test"}, "workers": 0}
    network, teacher_width, student_width = "kdcache.networks:convnet", {"width": 24}, {"width": STUDENT_WIDTH}
    validation = {"val_set": {"split": "test"}, "val_store": str(folder / "digits-test.kd"), "epochs": STUDENT_EPOCHS}
    teacher_settings = {"teacher": network, "teacher_set": teacher_width, "top_k": 5}
    teacher_settings["weights"] = str(folder / "teacher/weights/last.safetensors")

    def train_run(run: str, name: str, **values: Any) -> tuple[TrainSummary, float]:
        settings = TrainSettings.model_validate({"run": str(folder / run), "student": network, **values})
        return with_seconds(lambda: train(settings, progress=renamed(progress, name)))

    def extract_store(store: str, name: str, **values: Any) -> tuple[ExtractSummary, float]:
        settings = ExtractSettings.model_validate({"store": str(folder / store), **teacher_settings, **values})
        return with_seconds(lambda: extract(settings, progress=renamed(progress, name)))

    teacher, teacher_seconds = train_run(
        "teacher",
        "teacher",
        student_set=teacher_width,
        epochs=TEACHER_EPOCHS,
        val_set=validation["val_set"],
        **train_data,
    )
    store, store_seconds = extract_store("digits.kd", "store", views=str(VIEWS), seed=1, **train_data)
    extract_store("digits-test.kd", "store of the test split", **test_data)
    store_run, store_run_seconds = train_run(
        "student-kd",
        "student with the store",
        student_set=student_width,
        data="digits",
        workers=0,
        store=(store.store,),
        **validation,
    )
    plain_run, plain_run_seconds = train_run(
        "student-alone", "student alone", student_set=student_width, **train_data, **validation
    )
    rows = (
        DemoRow(what="teacher", accuracy=teacher.validation["accuracy"], agreement=None, seconds=teacher_seconds),
        DemoRow(what=f"store of {VIEWS} views", accuracy=store.accuracy_views, agreement=None, seconds=store_seconds),
        _student_row("student with the store", store_run.validation, store_run_seconds),
        _student_row("student alone", plain_run.validation, plain_run_seconds),
    )
    return DemoSummary(rows=rows, bytes_a_row=store.bytes_a_row, store=store.store, content_id=store.content_id)


def _student_row(name: str, validation: dict[str, float], seconds: float) -> DemoRow:
    return DemoRow(what=name, accuracy=validation["accuracy"], agreement=validation["agreement"], seconds=seconds)
