"""Is a student of stored maps as good as one of the live teacher's? A paired study of hint and simkd.

    python -m tests.benchmarks.taps_live --data FOLDER --out docs/figures/taps_live.json

Fashion-MNIST at 14 x 14, FOLDER as for fashion-mnist:FOLDER.

One teacher, one store with its features, classifier and last map; weights, epochs and rates are those of the table of
ten (`features.py`). Each seed trains three students of each objective from equal weights on the same batches: from the
store's f16 map; from the live teacher's f32 one; and from the live one times 1 + 1e-6 u, u uniform in [-1, 1], which is
no more than another order of sums changes. Losses of the first steps are compared twice: on one student (the live
arm's, by both maps), which is what the store changes at a step; and of two students that train apart, where the last
arm tells how far training itself drives equal students from each other.
"""

import argparse
import copy
import json
import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcache import Batch, Loader, Outputs, Store, extract, make_objective, open_data, train
from kdcache.networks.small import convnet
from kdcache.networks.taps import Tapped
from kdcache.networks.weights import load_weights
from kdcache.objectives.joined import AnyObjective, student_taps, teacher_taps, wrapped
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.train.sizes import sizes_of
from kdcache.training.loader_options import LabelOptions
from kdcache.training.metrics import Validation
from kdcache.training.optimisers import build_optimizer, rate_schedule
from tests.benchmarks.features import ARMS as ARMS_OF_TABLE
from tests.benchmarks.features import DATA, LAST_MAP
from tests.benchmarks.paired_report import difference, spread
from tests.kits.batches import batches_left

OBJECTIVES = {name: ARMS_OF_TABLE[name]["set"] for name in ("hint", "simkd")}
FIRST_STEPS = 100
MARGIN, RELATIVE, NUDGE = 0.7, 1e-3, 1e-6
ARMS = ("cached", "live", "nudged")
TEACHER = {"width": 16, "depth": 2}


@dataclass(frozen=True)
class Protocol:
    """All that decides the result."""

    data: str
    rows: int = 2000
    views: int = 4
    teacher_rows: int = 20_000
    teacher_epochs: int = 8
    seeds: int = 16
    first_seed: int = 1000
    epochs: int = 20
    batch_size: int = 64
    width: int = 6
    lr: float = 0.05


def prepare(protocol: Protocol, work: Path) -> None:
    """Train the teacher and extract the store."""
    light: dict[str, Any] = {"transform": "light", "transform_set": {"padding": 1, "flip": 0.5}, "workers": 0}
    settings = {"data": DATA, "device": "cpu", **light}
    folder = {"folder": protocol.data}
    train(TrainSettings.model_validate({
        "run": str(work / "teacher"), "student": "kdcache.networks:convnet", "student_set": TEACHER,
        "data_set": {**folder, "limit": protocol.teacher_rows}, "epochs": protocol.teacher_epochs, **settings,
    }))  # fmt: skip
    extract(ExtractSettings.model_validate({
        "store": str(work / "taps.kd"), "teacher": "kdcache.networks:convnet", "teacher_set": TEACHER,
        "weights": str(work / "teacher/weights/last.safetensors"), "data_set": {**folder, "limit": protocol.rows},
        "views": str(protocol.views), "keep": f"features,head,tap:{LAST_MAP}", **settings,
    }))  # fmt: skip


class Arm:
    """One student with its objective and optimiser."""

    def __init__(self, network: nn.Module, objective: AnyObjective, protocol: Protocol, steps: int) -> None:
        self.objective = copy.deepcopy(objective)
        torch.manual_seed(protocol.first_seed)  # of what wraps the network: equal in both arms
        self.network = wrapped(self.objective, copy.deepcopy(network)).train()
        self.tapped = Tapped(self.network, student_taps(self.objective))
        both = nn.ModuleList([self.network, self.objective])
        self.optimizer = build_optimizer(both, "sgd", lr=protocol.lr, momentum=0.9, weight_decay=5e-4)
        rate = rate_schedule("cosine", steps=steps, warmup=0, milestones=[], factor=1.0)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)

    def step(self, batch: Batch, other: Batch) -> tuple[float, float]:
        """Train on a batch. Its loss, and what the same outputs lose by `other`."""
        outputs = Outputs.tapped(*self.tapped(batch.images))
        with torch.no_grad():
            beside = float(self.objective(outputs, other))
        loss: Tensor = self.objective(outputs, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach()), beside


def run_seed(protocol: Protocol, work: Path, name: str, seed: int) -> dict[str, Any]:
    """Losses of the first steps, and the test accuracy of both students in per cent."""
    torch.set_num_threads(1)
    store = Store.open(work / "taps.kd")
    teacher = convnet(**TEACHER)
    load_weights(teacher, str(work / "teacher/weights/last.safetensors"), "teacher")
    live = Tapped(teacher.eval(), [LAST_MAP, "features"])
    torch.manual_seed(seed)
    student = convnet(width=protocol.width)
    sizes = sizes_of(student, torch.zeros(2, 1, 14, 14), [store])
    objective = make_objective(name, OBJECTIVES[name], sizes=sizes)
    data = open_data(DATA, {"folder": protocol.data, "limit": protocol.rows})
    loader = Loader(
        data, [store], batch_size=protocol.batch_size, epochs=protocol.epochs, seed=seed,
        labels=LabelOptions(taps=teacher_taps(objective, 1)),
    )  # fmt: skip
    arms = {arm: Arm(student, objective, protocol, len(loader) * protocol.epochs) for arm in ARMS}
    losses: dict[str, list[float]] = {arm: [] for arm in (*ARMS, "one student")}
    generator = torch.Generator().manual_seed(seed)
    for batch in batches_left(loader):
        with torch.no_grad():
            answered = live(batch.images)[1]
        maps = {tap: answered[tap] for tap in batch.taps[0]}
        noise = {tap: 2 * torch.rand(each.shape, generator=generator) - 1 for tap, each in maps.items()}
        alive = replace(batch, taps=(maps,))
        nudged = replace(batch, taps=({tap: each * (1 + NUDGE * noise[tap]) for tap, each in maps.items()},))
        for arm, taken in (("cached", batch), ("live", alive), ("nudged", nudged)):
            loss, beside = arms[arm].step(taken, batch)
            losses[arm].append(loss)
            if arm == "live":
                losses["one student"].append(beside)
    accuracy = {arm: tested(protocol, arms[arm].network) for arm in ARMS}
    apart = {name: farthest(losses[name], losses["live"]) for name in losses if name != "live"}
    return {"objective": name, "seed": seed, "largest_relative_loss_difference": apart, "accuracy": accuracy}


def farthest(losses: list[float], live: list[float]) -> float:
    """The largest relative difference of the losses of the first steps."""
    pairs = zip(losses[:FIRST_STEPS], live[:FIRST_STEPS], strict=True)
    return max(abs(one - other) / abs(other) for one, other in pairs)


def tested(protocol: Protocol, network: nn.Module) -> float:
    """Accuracy in per cent on the untransformed test split."""
    validation = Validation()
    network.eval()
    with torch.inference_mode():
        for batch in Loader(open_data(DATA, {"folder": protocol.data, "split": "test"}), batch_size=500, epochs=1):
            validation.update(network(batch.images), batch)
    return 100 * validation.results()["accuracy"]


def report(protocol: Protocol, runs: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """The paired difference of each objective, and whether both bounds hold."""
    results = {}
    for name in OBJECTIVES:
        own = [run for run in runs if run["objective"] == name]
        points = {arm: [run["accuracy"][arm] for run in own] for arm in ARMS}
        paired = {arm: difference(points[arm], points["live"]) for arm in ("cached", "nudged")}
        largest = {
            what: max(run["largest_relative_loss_difference"][what] for run in own)
            for what in ("one student", "cached", "nudged")
        }
        results[name] = {
            "minus_live_points": paired,
            "accuracy": {arm: spread(values) for arm, values in points.items()},
            "largest_relative_loss_difference_of_first_steps": largest,
            "accuracy_holds": -MARGIN < paired["cached"]["low"] <= 0 <= paired["cached"]["high"] < MARGIN,
            "losses_of_one_student_hold": largest["one student"] < RELATIVE,
            "losses_of_two_students_hold": largest["cached"] < RELATIVE,
        }
    device = f"{platform.machine()} CPU, torch {torch.__version__}"
    protocol_record = {**vars(protocol), "data": "Fashion-MNIST at 14 x 14"}
    return {"protocol": protocol_record, "device": device, "seconds": seconds, "results": results, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--first-seed", type=int, default=Protocol.first_seed)
    parser.add_argument("--seeds", type=int, default=Protocol.seeds)
    parser.add_argument("--epochs", type=int, default=Protocol.epochs)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    protocol = Protocol(given.data, seeds=given.seeds, first_seed=given.first_seed, epochs=given.epochs)
    start_time = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(given.jobs) as pool:
        work = Path(folder)
        prepare(protocol, work)
        tasks = [(name, protocol.first_seed + number) for number in range(protocol.seeds) for name in OBJECTIVES]
        runs = list(pool.map(run_seed, *zip(*[(protocol, work, name, seed) for name, seed in tasks], strict=True)))
    record = report(protocol, runs, time.monotonic() - start_time)
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["results"], indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
