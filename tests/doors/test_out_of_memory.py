"""Memory that runs out, of a GPU or of the machine: batches halve, or the error names their size and the next step."""

import pytest

from kdcache.networks import teacher
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.together import train_together
from tests.kits.doors import Door

NETS = '''"""Networks without memory for more than some rows: a GPU's as torch says it, or this machine's."""
import torch
from torch import nn

from kdcache.networks import convnet


class Net(nn.Module):
    def __init__(self, rows=1024, calls=0, place="gpu", training_alone=False, num_classes=10):
        super().__init__()
        self.net, self.rows, self.calls_left = convnet(width=2, num_classes=num_classes), rows, calls
        self.place, self.training_alone = place, training_alone

    def forward(self, images):
        if len(images) > self.rows and (self.training or not self.training_alone):
            self.calls_left -= 1
            if self.calls_left < 0 and self.place == "gpu":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is small")
            if self.calls_left < 0:
                torch.empty(2**50, dtype=torch.uint8)
        return self.net(images)
'''
DATA = ("--data", "digits", "--data-set", "limit=300", "--workers", 0)
PLACES = pytest.mark.parametrize(
    ("place", "text"), [("gpu", "CUDA out of memory"), ("host", "bytes of this machine's memory are left")]
)


def extract(store: str, *words: object) -> tuple[object, ...]:
    teacher = ("--teacher", "nets.py:Net", "--weights", "run/weights/last.safetensors", "--min-accuracy", 0)
    return ("extract", store, *teacher, *DATA, "--views", 2, "--top-k", 3, "--transform", "light", *words)


def settings(**arguments: object) -> tuple[object, ...]:
    return tuple(word for name, value in arguments.items() for word in ("--teacher-set", f"{name}={value}"))


@pytest.fixture
def nets(door: Door) -> Door:
    """A folder with the networks, and weights of one that has memory."""
    door.write("nets.py", NETS)
    door.done("train", "run", "--student", "nets.py:Net", *DATA, "--epochs", 1)
    return door


@pytest.fixture
def whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards have whole batches, as on a GPU."""
    monkeypatch.setattr(teacher, "CPU_ROWS", None)


@pytest.mark.usefixtures("whole_batches")
@pytest.mark.situation(
    "a GPU's memory does not hold a batch of an extraction",
    "a note: batches have half the rows from that block on",
    exit_code=0,
    left="a whole store",
)
def test_batches_of_an_extraction_halve(nets: Door) -> None:
    nets.done(*extract("small.kd", *settings(rows=1024), "--batch-size", 64))
    record = nets.done(*extract("halved.kd", *settings(rows=100)))
    note = "this process ran out of memory and went on with batches of 64 rows"
    assert [note in text for text in record["notes"]].count(True) == 1
    files = nets.contents()
    shards = {name: digest for name, digest in files.items() if name.startswith("small.kd/views-")}
    assert len(shards) > 20
    assert {name: files[name.replace("small.kd", "halved.kd")] for name in shards} == shards


@pytest.mark.usefixtures("whole_batches")
def test_blocks_before_that_stay(nets: Door) -> None:
    record = nets.done(*extract("s.kd", *settings(rows=100, calls=2)))
    assert (record["blocks"], record["rows"]) == (5, 600)
    assert any("batches of 64 rows" in note for note in record["notes"])


@PLACES
def test_a_teacher_that_has_no_memory_for_the_fewest_rows(nets: Door, place: str, text: str) -> None:
    files = nets.contents()
    message = nets.refused(*extract("s.kd", *settings(rows=8, place=place)))
    assert "memory ran out" in message
    assert "64 rows" in message
    assert text in message
    assert "--precision bfloat16" in message
    assert nets.contents() == files


@pytest.mark.usefixtures("whole_batches")
@pytest.mark.situation(
    "the machine's memory does not hold a batch of an extraction",
    "the rows of a batch, the memory that is left, and the next step; on a GPU a smaller `--batch-size`, which goes on "
    "from there",
    exit_code=2,
    left="whole blocks; the same command goes on",
)
def test_the_machine_has_no_memory_for_a_batch(nets: Door) -> None:
    words = extract("s.kd", *settings(rows=100, calls=2, place="host"))
    message = nets.refused(*words)
    assert "this process ran out of memory with batches of 256 rows" in message
    assert "can't allocate memory" in message
    assert "bytes of this machine's memory are left" in message
    assert "give --batch-size 128" in message
    assert "line 20, in Net.forward" in message


@pytest.mark.usefixtures("whole_batches")
def test_it_goes_on_with_smaller_batches(nets: Door) -> None:
    words = extract("s.kd", *settings(rows=100, calls=2, place="host"))
    nets.refused(*words)
    assert nets.done(*words, "--batch-size", 64)["blocks_done_before"] == 2


def test_on_a_cpu_no_smaller_batch_size_is_advised(nets: Door) -> None:
    """Forwards have 16 rows there whatever it is."""
    message = nets.refused(*extract("s.kd", *settings(rows=8, calls=40, place="host")))
    assert "this process ran out of memory with batches of 64 rows" in message
    assert "smaller views" in message
    assert "--batch-size" not in message


@pytest.mark.usefixtures("whole_batches")
def test_a_dry_run_names_it_too(nets: Door) -> None:
    message = nets.refused(*extract("s.kd", *settings(rows=100), "--dry-run"))
    assert "the dry run ran out of memory with batches of 256 rows" in message


@PLACES
def test_a_student_that_has_no_memory_for_a_batch(door: Door, place: str, text: str) -> None:
    door.write("nets.py", NETS)
    student = ("--student", "nets.py:Net", "--student-set", "rows=90", "--student-set", f"place={place}")
    message = door.refused("train", "run", *student, *DATA, "--batch-size", 128, "--epochs", 1)
    assert "run ran out of memory with batches of 128 rows" in message
    assert text in message
    assert "give --batch-size 64" in message
    door.done("train", "run", *student, *DATA, "--batch-size", 64, "--epochs", 1)


@pytest.mark.situation(
    "memory runs out in a training",
    "the rows of a batch, and a smaller `--batch-size`",
    exit_code=2,
    left="a run without weights",
)
def test_memory_runs_out_later_in_a_training(door: Door) -> None:
    door.write("nets.py", NETS)
    student = ("--student", "nets.py:Net", "--student-set", "rows=90", "--student-set", "calls=1")
    message = door.refused("train", "run", *student, *DATA, "--batch-size", 128, "--epochs", 1)
    assert "run ran out of memory with batches of 128 rows" in message


def test_one_of_several_students_has_no_memory(door: Door) -> None:
    nets = door.write("nets.py", NETS)
    runs = [
        TrainSettings(
            run=str(door.folder / str(rows)),
            student=f"{nets}:Net",
            student_set={"rows": rows},
            data="digits",
            data_set={"limit": 200},
            workers=0,
            epochs=1,
        )
        for rows in (90, 200)
    ]
    failed, done = train_together(runs)
    assert "90 ran out of memory with batches of 128 rows" in str(failed.error)
    assert done.summary is not None
