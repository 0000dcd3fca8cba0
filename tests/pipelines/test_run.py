"""A run as an object: made of parts it touches no file, begun it starts anew, resumed it is what it was."""

import json
from pathlib import Path

import pytest
import torch

from kdcache.base.launch import Launch
from kdcache.objectives.batch import Batch
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.prepare import make_student, open_inputs, open_loaders
from kdcache.pipelines.train.rank_generators import restore_generators, seed_generators
from kdcache.pipelines.train.run import Run
from kdcache.pipelines.train.run_files import RunFiles
from kdcache.pipelines.train.training_state import Student, TrainingState
from kdcache.store.plan import key_word
from kdcache.training.data_parallel import DataParallel
from kdcache.training.loader import Loader
from kdcache.training.ranks import Ranks
from kdcache.training.run_folder import load_state
from tests.kits.stages import student

KEYS = ("epoch", "step", "steps_done", "best", "loss_sum", "network", "objective", "optimizer", "scaler", "ema")
GENERATORS = ("generator", "cuda_generators")


def prepared(settings: TrainSettings) -> tuple[Student, Loader]:
    """A student of these settings, and the loader of its batches."""
    inputs = open_inputs(settings)
    made = make_student(settings, inputs)
    return made, open_loaders(settings, inputs).training


def settings_of(run: Path, seed: int = 0) -> TrainSettings:
    return student(run, device="cpu", ema=0.9, seed=seed, warmup_epochs=1.0)


def steps(run: Run, batches: list[Batch]) -> Run:
    for batch in batches:
        run.step(batch)
    return run


def test_a_run_made_of_its_parts_steps_and_touches_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made, loader = prepared(settings_of(Path("run")))
    state = TrainingState.of(made, "cpu")
    parallel = DataParallel(
        state.network, state.objective, Ranks(), lambda: next(iter(loader.spread_views(1).values()))
    )
    run = Run(made.settings, state, loader, RunFiles(Path("run")), parallel)
    assert (run.steps_total, run.steps_done, run.start, run.best) == (10, 0, (0, 0), -1.0)
    steps(run, list(loader)[:2])
    assert run.steps_done == 2
    assert float(run.loss_sum) > 0
    assert run.eval_network is not run.network
    assert run.summary().weights == "run/weights/last.safetensors"
    assert list(tmp_path.iterdir()) == []


def test_a_run_begins_at_its_first_rate_and_without_the_metrics_of_another(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 0, "loss": 1.0}\n')
    made, loader = prepared(settings_of(tmp_path))
    generators = torch.get_rng_state()
    run = Run.begin(made, loader, {"by": "a test"})
    assert (run.files.metrics, (tmp_path / "metrics.jsonl").read_text()) == ([], "")
    assert (run.start, run.steps_done, run.network.training) == ((0, 0), 0, True)
    assert run.optimizer.param_groups[0]["lr"] == run.settings.lr * run.multiplier(0) < run.settings.lr
    assert torch.equal(torch.get_rng_state(), generators)


def test_a_run_resumed_in_a_fresh_student_is_what_it_was_and_goes_on_equally(tmp_path: Path) -> None:
    made, loader = prepared(settings_of(tmp_path))
    batches = list(loader)
    run = steps(Run.begin(made, loader, {}), batches[:3])
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 0, "loss": 1.0}\n{"epoch": 1, "loss": 2.0}\n')
    run.save(1, 3)
    checkpoint = load_state(tmp_path)
    assert checkpoint is not None
    assert tuple(checkpoint) == (*KEYS, *GENERATORS)
    steps(run, batches[3:5])
    expected = run.state.state_dict()

    other, _ = prepared(settings_of(tmp_path, seed=1))
    resumed = Run.resume(other, loader, {}, checkpoint)
    assert (resumed.start, resumed.steps_done, resumed.best) == ((1, 3), 3, -1.0)
    assert torch.equal(resumed.loss_sum, checkpoint["loss_sum"])
    assert torch.equal(torch.get_rng_state(), checkpoint["generator"])
    assert resumed.optimizer.param_groups[0]["lr"] == resumed.settings.lr * resumed.multiplier(3)
    assert [line["loss"] for line in resumed.files.metrics] == [1.0]
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"epoch": 0, "loss": 1.0}
    steps(resumed, batches[3:5])
    assert torch.equal(resumed.loss_sum, run.loss_sum)
    torch.testing.assert_close(resumed.state.state_dict(), expected, rtol=0, atol=0)


def test_processes_draw_unlike_each_other_and_as_their_checkpoint_has_it() -> None:
    first, second, third = (Ranks(Launch(rank=rank, world_size=3)) for rank in range(3))
    states = [torch.Generator().manual_seed(seed).get_state() for seed in (1, 2)]
    entries = [{"generator": state, "cuda_generators": []} for state in states]
    checkpoint = {**entries[0], "other_ranks": entries[1:], "steps_done": 7}
    for ranks, state in zip((first, second), states, strict=True):
        restore_generators(checkpoint, ranks, seed=5)
        assert torch.equal(torch.get_rng_state(), state)
    restore_generators(checkpoint, third, seed=5)  # two processes wrote the checkpoint
    assert torch.initial_seed() == key_word(5, 2, 7, "rank") >> 1
    seed_generators(first, 5, 0)
    assert torch.initial_seed() == key_word(5, 2, 7, "rank") >> 1  # the first process keeps its own
    seed_generators(second, 5, 0)
    assert torch.initial_seed() == key_word(5, 1, 0, "rank") >> 1
