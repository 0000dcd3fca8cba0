"""The common ground of studies on feature losses: one convolutional teacher of many rows, its maps in one store."""

from dataclasses import dataclass

from kdcache.pipelines.studies.bench import Bench, Network

ROWS, EPOCHS = 1_000, 80
LAST, POOLED = "12", "13"  # layers of `convnet` of two stages: its last map, and that behind the last pooling


@dataclass(frozen=True)
class Maps:
    """A teacher's store with its maps, the student that learns from it, and how the last map of both is named."""

    store: str
    student: Network
    taps: dict[str, str]


def open_maps(bench: Bench) -> Maps:
    """The store of a teacher with features, head and last maps, and a student of four channels. A network of the
    user's own keeps its last stage."""
    teacher = bench.teacher(bench.convnet(16), rows=20_000, epochs=5)
    keep: tuple[str, ...] = ("features", "head", f"tap:{LAST}", f"tap:{POOLED}")
    taps = {"student_tap": LAST, "teacher_tap": LAST}
    if bench.settings.teacher:
        name = bench.last_map()
        keep, taps = ("features", "head", f"tap:{name}"), {"student_tap": LAST, "teacher_tap": name}
    if bench.settings.student:
        taps.pop("student_tap")
    return Maps(bench.store(teacher, bench.data.part(ROWS), keep=keep), bench.convnet(4), taps)


DIFFERENCES = (
    "The paper's networks learn from the rows that their teacher saw; here a convolutional teacher of two stages saw "
    "20,000 rows of {data}, and students of four channels see 1,000.",
    "One teacher stands for all: intervals are over students' seeds.",
)
