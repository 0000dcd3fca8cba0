"""Transforms and data sets in which something besides the sample decides: the counter, the time, the process, a file.

Extraction draws samples again in a fresh process, so it names one and commits no block with a row of another picture.
"""

import re

import pytest
import torch

from kdcache.base.cluster import open_cluster
from kdcache.networks.small import convnet
from kdcache.pipelines.extract import fresh_draws
from kdcache.pipelines.extract.dask_cluster import PRELOAD
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from tests.kits.changing import CHANGING_FILE, SETS, TRANSFORMS
from tests.kits.doors import Door

ROWS, VIEWS = 600, 4
NETWORK = ("--teacher", "kdcache.networks:convnet", "--teacher-set", "width=2", "--teacher-set", "channels=3")
CHEAP = ("--weights", "teacher.safetensors", "--views", VIEWS, "--top-k", 2, "--min-accuracy", 0, "--batch-size", 64)


@pytest.fixture(autouse=True)
def code(door: Door) -> None:
    door.write("sets.py", SETS)
    door.write("views.py", TRANSFORMS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_weights(door.folder / "teacher.safetensors", convnet(width=2, channels=3, num_classes=4))


def extraction(store: str, transform: str = "plain", data: str = "Pictures", *more: object) -> list[object]:
    """The words of an extraction of the user's data set through the user's transform."""
    own = ("--data", f"sets.py:{data}", "--transform", f"views.py:{transform}")
    return ["extract", store, *NETWORK, *own, *CHEAP, *more]


def require_named(message: str) -> None:
    """A sample is named by its number and its id, which tells the number too."""
    number = re.search(r"sample (\d+)\b", message)
    assert number, message
    assert f"number-{number[1]}" in message


def wrong_blocks(door: Door, store: str, right: str) -> tuple[int, list[int]]:
    """The number of committed blocks, and those of other views than those of the right store."""
    commits = [set(segment.commits()) for segment in Store.open_for_writing(door.folder / store).segments]
    shards = door.folder / right / f"views-00000-{VIEWS:05d}/pixels/c/0"
    written = door.folder / store / shards.relative_to(door.folder / right)
    blocks = sorted(set().union(*commits))
    return len(blocks), [
        block for block in blocks if (written / f"{block}").read_bytes() != (shards / f"{block}").read_bytes()
    ]


BEFORE: dict[str, list[object]] = {
    "a counter": extraction("x.kd", "counting"),
    "a counter, in workers": extraction("x.kd", "counting", "Pictures", "--workers", 2),
    "the time": extraction("x.kd", "by_time"),
    "the time at which its file was imported": extraction("x.kd", "by_start"),
    "the time of its file's import, in workers": extraction("x.kd", "by_start", "Pictures", "--workers", 2),
    "the number of its process": extraction("x.kd", "by_process"),
    "a worker's number": extraction("x.kd", "by_worker"),
    "a worker's number, in workers": extraction("x.kd", "by_worker", "Pictures", "--workers", 2),
    "a file": extraction("x.kd", "by_file", "Pictures", "--transform-set", "path=scratch/number"),
    "a cache of the first view": extraction("x.kd", "first_view"),
    "a cache of the first view, in workers": extraction("x.kd", "first_view", "Pictures", "--workers", 2),
    "a generator of its own": extraction("x.kd", "own_generator"),
    "a generator of its own, in one view of five": extraction(
        "x.kd", "rarely", "Pictures", "--transform-set", "share=0.2"
    ),
    "a data set's counter": extraction("x.kd", "plain", "Counting"),
    "a data set's time": extraction("x.kd", "plain", "Born"),
    "a data set's random fallback": extraction("x.kd", "plain", "RandomFallback"),
    "a data set's random fallback, with --on-bad-sample strike": extraction(
        "x.kd", "plain", "RandomFallback", "--on-bad-sample", "strike"
    ),
    "a counter, mixed": extraction("x.kd", "counting", "Pictures", "--mix", "cutmix"),
}


@pytest.mark.situation(
    "a transform or a data set in which something besides the sample decides: a counter, the time, a worker's number, "
    "a file, a cache of the first view, a random fallback",
    "the sample and the view that a fresh process draws otherwise; nothing is written",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize("words", [pytest.param(words, id=name) for name, words in BEFORE.items()])
def test_what_decides_besides_the_sample_is_found_before_anything_is_written(door: Door, words: list[object]) -> None:
    (door.folder / "scratch").mkdir()
    (door.folder / "scratch/number").write_text("0")
    require_named(door.refused(*words, *(() if "--workers" in words else ("--workers", 0))))
    (door.folder / "scratch/number").write_text("0")  # which the user's own transform wrote


LATE: dict[str, list[object]] = {
    "a counter": extraction("late.kd", "counting", "Pictures", "--transform-set", "after=1700"),
    "a data set's counter": extraction("late.kd", "plain", "Counting", "--data-set", "after=500"),
    "a counter, in workers": extraction(
        "late.kd", "counting", "Pictures", "--transform-set", "after=900", "--workers", 2
    ),
}


@pytest.mark.situation(
    "the same, long after extraction began",
    "the sample and the view; blocks of before hold right views, and no later one is written",
    exit_code=2,
    left="whole blocks; the same command goes on",
)
@pytest.mark.parametrize("words", [pytest.param(words, id=name) for name, words in LATE.items()])
def test_what_changes_late_leaves_right_blocks_alone(
    door: Door, monkeypatch: pytest.MonkeyPatch, words: list[object]
) -> None:
    words = [*words, "--order", "given", *(() if "--workers" in words else ("--workers", 0))]
    door.done(*extraction("right.kd"), "--order", "given", "--workers", 0)
    require_named(door.refused(*words))
    blocks, wrong = wrong_blocks(door, "late.kd", "right.kd")
    assert (0 < blocks < 10, wrong) == (True, [])


@pytest.mark.slow
def test_what_changes_in_the_workers_of_a_cluster(door: Door) -> None:
    with open_cluster(workers=1, dashboard="127.0.0.1:0", preload=PRELOAD) as cluster:
        words = ("--workers", 0, "--engine", "dask", "--scheduler", cluster.address)
        code = {"data": f"{door.folder}/sets.py:Pictures", "weights": f"{door.folder}/teacher.safetensors"}
        code |= {"transform": f"{door.folder}/views.py:by_start"}
        named = [word for name, value in code.items() for word in (f"--{name}", value)]
        require_named(door.refused(*extraction(str(door.folder / "dealt.kd")), *words, *named))
    assert not list(door.folder.glob("dealt.kd/kdcache/views-*/commits/*/*.json"))


def test_the_number_of_a_rank_decides_no_view(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun starts it; with one process there is nobody to wait for."""
    for name, value in {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": 1,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    require_named(door.refused(*extraction("x.kd", "by_rank", "Pictures", "--workers", 0)))
    assert not (door.folder / "x.kd").exists()
    door.done(*extraction("good.kd", "plain", "Pictures", "--workers", 0))


def test_a_resumed_extraction_is_looked_at_too(door: Door) -> None:
    """A transform that reads a file is the same in each process, until the file is another."""
    (door.folder / "views.py").write_text(TRANSFORMS + CHANGING_FILE)
    words = [*extraction("x.kd", "reading", "Pictures", "--workers", 0), "--transform-set", "path=number"]
    door.write("number", "1")
    door.done(*words)
    before = door.contents()
    door.write("number", "2")
    assert "view 0" in door.refused(*words, "--views", "4:6")
    after = door.contents()
    assert {name: digest for name, digest in after.items() if "commits" in name} == {
        name: digest for name, digest in before.items() if "commits" in name
    }


@pytest.mark.situation(
    "a transform that depends on `hash` of a text, which Python makes another in each process",
    "the sample and the view that a fresh process draws otherwise; nothing is written",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.slow
def test_hashes_of_texts_decide_no_view(door: Door) -> None:
    """By processes as users have them, also where a variable holds hashes still."""
    words = extraction("x.kd", "by_hash", "Pictures", "--workers", 0)
    outcome = door.run_apart(*words, timeout=300, PYTHONHASHSEED="0")
    require_named(" ".join(outcome.err.split()))
    assert "Traceback" not in outcome.err


@pytest.mark.slow
def test_fresh_processes_as_users_have_them(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_draws, "launch", fresh_draws.start_process)
    message = door.refused(*extraction("x.kd", "plain", "Shuffled", "--workers", 0))
    assert "dataset.ids" in message
    assert not (door.folder / "x.kd").exists()
    monkeypatch.chdir(door.folder)
    door.done(*extraction("good.kd", "plain", "Pictures", "--workers", 2))


CLEAN: dict[str, tuple[object, ...]] = {
    "mixup": ("plain", "Pictures", "--mix", "mixup"),
    "cutmix, in workers": ("plain", "Pictures", "--mix", "cutmix", "--workers", 2),
    "pictures that are kept": ("plain", "Remembering"),
    "pictures that are kept, in workers": ("plain", "Remembering", "--workers", 2),
    "later views": ("plain", "Pictures", "--views", "7:9"),
    "one view": ("plain", "Pictures", "--views", 1),
    "samples in their given order": ("plain", "Pictures", "--order", "given"),
    "labels that mean something else": ("plain", "Pictures", "--labels", "none", "--teacher-set", "num_classes=4"),
    "samples that are struck": ("plain", "Unreadable", "--on-bad-sample", "strike"),
    "samples that are struck, in workers": ("plain", "Unreadable", "--on-bad-sample", "strike", "--workers", 2),
}


@pytest.mark.parametrize("words", [pytest.param(words, id=name) for name, words in CLEAN.items()])
def test_views_that_do_not_change_are_no_alarm(door: Door, words: tuple[object, ...]) -> None:
    record = door.done(*extraction("good.kd", *words), *(() if "--workers" in words else ("--workers", 0)))  # type: ignore[arg-type]
    assert record["struck"] == (30 if "Unreadable" in words else 0)
    assert not any("drawn again" in note for note in record["notes"])
    assert Store.open(door.folder / "good.kd").content_id == record["content_id"]
