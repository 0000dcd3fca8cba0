"""Ten objectives of taps beside kd and labels alone: accuracy, bytes a row and seconds, all trained by kdcache itself.

    python -m tests.benchmarks.features --data FOLDER --out docs/features.md

Fashion-MNIST at 14 x 14 (means of 2 x 2 pixels), FOLDER as for fashion-mnist:FOLDER. A teacher of 20,000 rows answers
for a store of 2,000; the students of a seed learn together from one stream. Weights were chosen on seeds below 1000.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcache import Loader, Store, extract, open_data, train
from kdcache.networks.build import build_network
from kdcache.networks.weights import load_weights
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.train.together import train_together
from kdcache.store.lineage import read_network
from kdcache.training.metrics import Validation
from kdcache.views.built_in import load_fashion_mnist
from tests.benchmarks.paired_report import difference, spread

NETWORK, DATA = "kdcache.networks:convnet", "tests.benchmarks.features:half_fashion"
TEACHER = {"width": 16, "depth": 2}
LAST_MAP = "13"  # of convnet(depth=2): [32, 3, 3]
KEEP = ("features", "head", f"tap:{LAST_MAP}")
ARMS: dict[str, dict[str, Any]] = {
    "labels": {"set": {"w_ce": 1.0, "w_kd": 0.0}, "objective": "kd"},
    "kd": {},
    "hint": {"set": {"w_kd": 3.0}},
    "at": {"set": {"w_kd": 10.0}},
    "sp": {"set": {"w_kd": 100.0}},
    "rkd": {"set": {"w_kd": 0.1}},
    "pkt": {"set": {"w_kd": 100.0}},
    "crd": {"set": {"w_kd": 0.08, "negatives": 1024}},
    "srrl": {"set": {"w_kd": 1.0, "regression": 0.1}},
    "simkd": {"set": {"w_kd": 10.0}},
    "mgd": {"set": {"w_kd": 1.0}},
    "aligned": {"set": {"w_kd": 3.0}},
}
ARRAY_OF_MAP = "taps.0"
ARRAYS = {"kd": ("logits",), "crd": ("features",), "rkd": ("features",), "pkt": ("features",), "srrl": ("features",)}


@dataclass(frozen=True)
class Protocol:
    """All that decides the result."""

    data: str
    rows: int = 2000
    teacher_rows: int = 20_000
    teacher_epochs: int = 8
    seeds: int = 8
    first_seed: int = 1000
    epochs: int = 20
    batch_size: int = 64
    width: int = 6
    lr: float = 0.05


def fashion_folder() -> str:
    """The folder of Fashion-MNIST's files that the environment names, as for the tests."""
    return os.environ["KDCACHE_FASHION_MNIST"]


class HalfFashion:
    """Fashion-MNIST at 14 x 14, u8: `targets` and `classes` as of a torchvision data set."""

    def __init__(self, folder: str, split: str) -> None:
        built_in = load_fashion_mnist(Path(folder), split)
        means = nn.functional.avg_pool2d(built_in.samples.images.float(), 2)
        self.images, self.targets = means.round().to(torch.uint8), built_in.samples.labels.tolist()
        self.classes = list(built_in.class_names)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.targets[index]


def half_fashion(folder: str, split: str = "train") -> HalfFashion:
    """The data set that `--data tests.benchmarks.features:half_fashion` names."""
    return HalfFashion(folder, split)


def common(protocol: Protocol, rows: int) -> dict[str, Any]:
    """Settings that teacher, store and students share."""
    return {"data": DATA, "data_set": {"folder": protocol.data, "limit": rows}, "workers": 0, "device": "cpu"}


def make_store(protocol: Protocol, work: Path) -> dict[str, float]:
    """Train the teacher and extract the store. Returns the store's bytes a row by array, files as they lie."""
    rest = common(protocol, protocol.teacher_rows)
    run = {"run": str(work / "teacher"), "student": NETWORK, "student_set": TEACHER, "epochs": protocol.teacher_epochs}
    train(TrainSettings.model_validate({**run, **rest, "lr": protocol.lr}))
    weights = str(work / "teacher/weights/last.safetensors")
    asked = {
        "store": str(work / "taps.kd"),
        "teacher": NETWORK,
        "teacher_set": TEACHER,
        "weights": weights,
        "keep": KEEP,
    }
    extract(ExtractSettings.model_validate({**asked, **common(protocol, protocol.rows)}))
    store = Store.open(work / "taps.kd")
    names = store.identity.encoding.outputs | {"logits": None}
    segment = work / "taps.kd" / store.segments[0].layout.name
    return {
        name: sum(path.stat().st_size for path in (segment / name).rglob("*") if path.is_file()) / store.rows
        for name in names
    }


def settings_of(protocol: Protocol, work: Path, arm: str, seed: int) -> TrainSettings:
    """The training of one arm."""
    given = {
        "run": str(work / f"{arm}-{seed}"), "student": NETWORK, "student_set": {"width": protocol.width},
        "store": (str(work / "taps.kd"),), "objective": arm, "epochs": protocol.epochs, "seed": seed,
        "batch_size": protocol.batch_size, "lr": protocol.lr,
    }  # fmt: skip
    return TrainSettings.model_validate({**given, **common(protocol, protocol.rows), **ARMS[arm]})


def run_seed(protocol: Protocol, work: Path, arms: Sequence[str], seed: int) -> dict[str, Any]:
    """All arms of a seed on one stream: test accuracies, and the seconds that all took together."""
    torch.set_num_threads(1)
    start_time = time.monotonic()
    outcomes = train_together([settings_of(protocol, work, arm, seed) for arm in arms])
    seconds = time.monotonic() - start_time
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    accuracy = {arm: tested(protocol, work / f"{arm}-{seed}/weights/last.safetensors") for arm in arms}
    return {"seed": seed, "accuracy": accuracy, "seconds": seconds}


def saved_network(weights: Path, protocol: Protocol) -> nn.Module:
    """The network of a weights file, built without the store."""
    network_record = read_network(weights)
    own = {"student": NETWORK, "student_set": {"width": protocol.width}}
    if network_record is None:
        network = build_network(NETWORK, own["student_set"], 10, "student")
    else:
        network = build_network(network_record.name, {**own, **network_record.arguments}, 10, "student")
    load_weights(network, str(weights), "student")
    return network.eval()


def tested(protocol: Protocol, weights: Path) -> float:
    """Accuracy in per cent on the 10,000 test rows."""
    network, validation = saved_network(weights, protocol), Validation()
    data = open_data(DATA, {"folder": protocol.data, "split": "test"})
    with torch.inference_mode():
        for batch in Loader(data, batch_size=500, epochs=1):
            validation.update(network(batch.images), batch)
    return 100 * validation.results()["accuracy"]


def seconds_of(protocol: Protocol, work: Path, arms: Sequence[str]) -> dict[str, float]:
    """Seconds of one training of each arm alone, five epochs, one thread."""
    torch.set_num_threads(1)
    seconds = {}
    for arm in arms:
        settings = settings_of(protocol, work, arm, 0).model_copy(
            update={"epochs": 5, "run": str(work / f"{arm}-timed")}
        )
        seconds[arm] = train(settings).seconds / 5
    return seconds


def table(runs: Sequence[dict[str, Any]], sizes: dict[str, float], seconds: dict[str, float]) -> list[dict[str, Any]]:
    """A line an arm: accuracy, paired differences to labels alone and to kd, bytes a row, seconds an epoch."""
    points = {arm: [run["accuracy"][arm] for run in runs] for arm in runs[0]["accuracy"]}
    lines = []
    for arm, values in points.items():
        arrays = ARRAYS.get(arm, () if arm == "labels" else (ARRAY_OF_MAP,))
        lines.append({
            "objective": arm,
            "settings": ARMS.get(arm, {}).get("set", {}),
            "accuracy": spread(values),
            "minus_labels": difference(values, points["labels"]),
            "minus_kd": difference(values, points["kd"]),
            "bytes_a_row": sum(sizes[name] for name in arrays),
            "seconds_an_epoch": seconds[arm],
        })  # fmt: skip
    return lines


def markdown(record: dict[str, Any]) -> str:
    """The table of the page."""
    rows = [
        "| objective | test accuracy | minus labels alone (95 %) | minus kd (95 %) | bytes a row | seconds an epoch |",
        "|---|---|---|---|---|---|",
    ]
    for line in record["table"]:
        columns = [line["objective"], f"{line['accuracy']['mean']:.2f}"]
        for name, itself in (("minus_labels", "labels"), ("minus_kd", "kd")):
            paired = line[name]
            text = f"{paired['mean']:+.2f} ({paired['low']:+.2f} to {paired['high']:+.2f})"
            columns.append("" if line["objective"] == itself else text)
        columns += [f"{line['bytes_a_row']:.0f}", f"{line['seconds_an_epoch']:.2f}"]
        rows.append(f"| {' | '.join(columns)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of Fashion-MNIST's files")
    parser.add_argument("--seeds", type=int, default=Protocol.seeds)
    parser.add_argument("--first-seed", type=int, default=Protocol.first_seed)
    parser.add_argument("--epochs", type=int, default=Protocol.epochs)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--out", type=Path, required=True, help="JSON; the table is printed")
    given = parser.parse_args()
    protocol = Protocol(given.data, seeds=given.seeds, first_seed=given.first_seed, epochs=given.epochs)
    arms = given.arms.split(",")
    start_time = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(given.jobs) as pool:
        work = Path(folder)
        sizes = make_store(protocol, work)
        seconds = seconds_of(protocol, work, arms)
        seeds = range(protocol.first_seed, protocol.first_seed + protocol.seeds)
        runs = list(pool.map(run_seed, *zip(*[(protocol, work, arms, seed) for seed in seeds], strict=True)))
        teacher = tested_teacher(protocol, work)
    record = {
        "protocol": {**asdict(protocol), "data": "Fashion-MNIST at 14 x 14"},
        "device": f"{platform.machine()} CPU, one thread a seed",
        "versions": {name: version(name) for name in ("torch", "numpy", "zarr")},
        "command": "python -m tests.benchmarks.features",
        "teacher_accuracy": teacher,
        "minutes": (time.monotonic() - start_time) / 60,
        "sizes": sizes,
        "table": table(runs, sizes, seconds),
        "runs": runs,
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    print(markdown(record))  # noqa: T201


def tested_teacher(protocol: Protocol, work: Path) -> float:
    """The teacher's test accuracy in per cent."""
    wide = Protocol(protocol.data, width=TEACHER["width"])
    return tested(wide, work / "teacher/weights/last.safetensors")


if __name__ == "__main__":
    main()
