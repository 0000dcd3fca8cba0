"""Is a student of stored maps as good as one of the live teacher's? A paired study of hint and simkd.

    python -m tests.benchmarks.taps_live --data FOLDER --out docs/figures/taps_live.json

Fashion-MNIST at 14 x 14, FOLDER as for fashion-mnist:FOLDER.

One teacher, one store with its features, classifier and last map. Each seed trains two students of each objective from
equal weights on the same batches: from the store's f16 map, and from the live teacher's f32 one.
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
from tests.benchmarks.features import DATA, LAST_MAP
from tests.benchmarks.paired_report import difference, spread
from tests.kits.batches import batches_left

OBJECTIVES = {"hint": {"w_kd": 1.0}, "simkd": {"w_kd": 1.0}}
FIRST_STEPS = 100
MARGIN, RELATIVE = 0.7, 1e-3
TEACHER = {"width": 16, "depth": 2}


@dataclass(frozen=True)
class Protocol:
    """All that decides the result."""

    data: str
    rows: int = 2000
    views: int = 4
    teacher_rows: int = 20_000
    teacher_epochs: int = 5
    seeds: int = 16
    first_seed: int = 1000
    epochs: int = 10
    batch_size: int = 64
    width: int = 6
    lr: float = 0.01


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

    def step(self, batch: Batch) -> float:
        loss: Tensor = self.objective(Outputs.tapped(*self.tapped(batch.images)), batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())


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
    arms = {arm: Arm(student, objective, protocol, len(loader) * protocol.epochs) for arm in ("cached", "live")}
    losses: dict[str, list[float]] = {arm: [] for arm in arms}
    for batch in batches_left(loader):
        with torch.no_grad():
            answered = live(batch.images)[1]
        maps = ({tap: answered[tap] for tap in batch.taps[0]},)
        for arm, taken in (("cached", batch), ("live", replace(batch, taps=maps))):
            losses[arm].append(arms[arm].step(taken))
    pairs = zip(losses["cached"][:FIRST_STEPS], losses["live"][:FIRST_STEPS], strict=True)
    apart = max(abs(cached - alive) / abs(alive) for cached, alive in pairs)
    accuracy = {arm: tested(protocol, arms[arm].network) for arm in arms}
    return {"objective": name, "seed": seed, "largest_relative_loss_difference": apart, "accuracy": accuracy}


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
        points = {arm: [run["accuracy"][arm] for run in own] for arm in ("cached", "live")}
        paired = difference(points["cached"], points["live"])
        apart = max(run["largest_relative_loss_difference"] for run in own)
        results[name] = {
            "cached_minus_live_points": paired,
            "accuracy": {arm: spread(values) for arm, values in points.items()},
            "largest_relative_loss_difference_of_first_steps": apart,
            "holds": -MARGIN < paired["low"] <= 0 <= paired["high"] < MARGIN and apart < RELATIVE,
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
