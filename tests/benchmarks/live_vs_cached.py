"""Is a student trained from a store as good as one trained with the live teacher? A paired study, and its seconds.

    python -m tests.benchmarks.live_vs_cached --data fashion-mnist:FOLDER --out docs/figures

One teacher, two stores of it (top-k and full). Each seed trains four students from equal initial weights on the same
batches: alone, with the live teacher's f32 logits, and from either store. Writes live_vs_cached.json and .png.
"""

import argparse
import copy
import multiprocessing
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from kdcache import KD, Batch, FeedOptions, Loader, Objective, Store, extract, open_data, train
from kdcache.base.view_span import ViewSpan
from kdcache.labels.full import FullLabels
from kdcache.labels.reduction import centre, label_distances
from kdcache.networks.build import build_network
from kdcache.networks.preparation import Preparation, default_normalisation
from kdcache.networks.teacher import Teacher
from kdcache.networks.weights import load_weights
from kdcache.objectives.targets import kl_rows
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.training.metrics import Validation
from kdcache.training.optimisers import build_optimizer, rate_schedule
from tests.benchmarks.paired_report import markdown, plot, summarise, write_json
from tests.kits.batches import batches_left

ARMS = ("alone", "live", "cached_topk", "cached_full")
STUDENT = "tests.benchmarks.live_vs_cached:small_student"
TEACHER = "kdcache.networks:convnet"


def flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Protocol:
    """All that decides the result; every field is a flag."""

    data: str = field(metadata={"help": "fashion-mnist:FOLDER, or another data set with splits train and test"})
    rows: int = flag(10_000, "training rows of the students and the stores")
    views: int = flag(10, "views in the stores; epoch e uses view e mod views")
    side: int = flag(28, "pixels of an image's side")
    padding: int = flag(2, "padding of the light transform, in pixels")
    teacher_rows: int = flag(60_000, "training rows of the teacher")
    teacher_epochs: int = flag(3, "epochs of the teacher")
    teacher_width: int = flag(16, "width of the teacher, a convnet")
    teacher_depth: int = flag(3, "stages of the teacher")
    seeds: int = flag(10, "pairs: initial weights and batch order")
    first_seed: int = flag(0, "seeds count from here")
    epochs: int = flag(20, "epochs of the students")
    batch_size: int = flag(128, "rows of a batch")
    lr: float = flag(0.03, "peak rate of SGD with Nesterov momentum 0.9, cosine to 0")
    weight_decay: float = flag(5e-4, "L2 of the weights")
    w_ce: float = flag(0.1, "weight of the hard labels in KD")
    w_kd: float = flag(0.9, "weight of the soft labels in KD")
    temperature: float = flag(2.0, "of KD")
    top_k: int = flag(5, "classes that the top-k store keeps")
    margin: float = flag(0.3, "points within which cached and live must agree")
    trials: int = flag(5, "timed epochs of each arm, alternating")
    jobs: int = flag(2, "seeds trained at the same time, one thread each")

    @property
    def light(self) -> dict[str, Any]:
        return {"transform": "light", "transform_set": {"padding": self.padding, "flip": 0.5}}


def small_student(num_classes: int = 10, channels: int = 1, side: int = 28) -> nn.Sequential:
    """Two 3x3 convolutions of stride 2, 16 channels each, and a linear layer on all pixels: 10,362 parameters."""
    layers: list[nn.Module] = []
    for before, after in ((channels, 16), (16, 16)):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        side = (side + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * side * side, num_classes))


class Arm:
    """One student of a seed with its optimiser; `kd` says what it learns from."""

    def __init__(self, network: nn.Module, protocol: Protocol, kd: Objective, steps: int) -> None:
        self.network, self.kd = copy.deepcopy(network).train(), kd
        decay = protocol.weight_decay
        self.optimizer = build_optimizer(self.network, "sgd", lr=protocol.lr, momentum=0.9, weight_decay=decay)
        rate = rate_schedule("cosine", steps=steps, warmup=0, milestones=[], factor=1.0)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)

    def step(self, batch: Batch) -> float:
        loss: Tensor = self.kd(self.network(batch.images), batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())


def make_teacher(protocol: Protocol, work: Path) -> None:
    """Train the teacher by kdcache's train()."""
    train(
        TrainSettings(
            run=str(work / "teacher"), data=protocol.data, student=TEACHER, student_set=_teacher_set(protocol),
            data_set={"split": "train", "limit": protocol.teacher_rows}, epochs=protocol.teacher_epochs, workers=0,
            device="cpu", **protocol.light,
        )
    )  # fmt: skip


def make_stores(protocol: Protocol, work: Path) -> dict[str, dict[str, Any]]:
    """Extract the top-k and the full store by kdcache's extract()."""
    found = {}
    for name, encoding in (("topk", {"top_k": protocol.top_k}), ("full", {})):
        summary = extract(
            ExtractSettings(
                store=str(work / f"{name}.kd"), data=protocol.data, teacher=TEACHER, encoding=name,
                data_set={"split": "train", "limit": protocol.rows}, teacher_set=_teacher_set(protocol), workers=0,
                weights=str(work / "teacher/weights/last.safetensors"), views=str(protocol.views), device="cpu",
                **protocol.light, **encoding,
            )
        )  # fmt: skip
        kept = ("content_id", "rows", "bytes_a_row", "accuracy_clean", "accuracy_views", "clamped_rows")
        found[name] = {key: getattr(summary, key) for key in kept}
    return found


def _teacher_set(protocol: Protocol) -> dict[str, int]:
    return {"width": protocol.teacher_width, "depth": protocol.teacher_depth}


def open_teacher(protocol: Protocol, work: Path) -> Teacher:
    """The live teacher, built as extract builds it."""
    network = build_network(TEACHER, _teacher_set(protocol), 10, "teacher")
    load_weights(network, work / "teacher/weights/last.safetensors")
    return Teacher(network, preparation=Preparation(*default_normalisation(1), "cpu"))


def live_labels(teacher: Teacher, batch: Batch) -> FullLabels:
    """What the teacher says of the batch's own images, in f32, in the form that the objective takes."""
    logits = teacher.answer(batch.images).logits
    centred = centre(logits.clone())  # a clone, for autograd keeps no tensor that was made in inference mode
    return FullLabels(centred, label_distances(centred, batch.y[:, None])[:, 0], centred.shape[1])


def held_out(protocol: Protocol, teacher: Teacher) -> list[Batch]:
    """The untransformed test split with the teacher's word on it."""
    loader = Loader(open_data(protocol.data, {"split": "test"}), batch_size=256, epochs=1)
    return [replace(batch, teachers=(live_labels(teacher, batch),)) for batch in loader]


def measure(network: nn.Module, batches: list[Batch]) -> dict[str, float]:
    """Accuracy, NLL, ECE, agreement with the teacher and KL from it."""
    network.eval()
    measured = Validation()
    with torch.inference_mode():
        for batch in batches:
            measured.update(network(batch.images), batch)
    return measured.results()


def train_loader(protocol: Protocol, work: Path, names: tuple[str, ...], epochs: int, seed: int) -> Loader:
    """Batches with the soft labels of the named stores; with none, the same batches from the same plan."""
    stores = [Store.open(work / f"{name}.kd") for name in names]
    plain = Store.open(work / "full.kd")
    return Loader(
        open_data(protocol.data, {"split": "train", "limit": protocol.rows}), stores, seed=seed,
        batch_size=protocol.batch_size, epochs=epochs, views=ViewSpan(0, protocol.views),
        feed=FeedOptions(plan=plain.identity.plan, order=plain.order),
    )  # fmt: skip


def new_arms(protocol: Protocol, seed: int, steps: int) -> dict[str, Arm]:
    """Four students of equal initial weights."""
    torch.manual_seed(seed)
    network = build_network(STUDENT, {"side": protocol.side}, 10, "student")
    kd = Objective(KD(protocol.temperature), w_ce=protocol.w_ce, w_kd=protocol.w_kd)
    plain = Objective(KD(), w_ce=1.0, w_kd=0.0)
    return {name: Arm(network, protocol, plain if name == "alone" else kd, steps) for name in ARMS}


def run_seed(protocol: Protocol, work: Path, seed: int) -> dict[str, Any]:
    """Train the four students of a seed in lock-step, each batch drawn once, and test them."""
    torch.set_num_threads(1)
    began = time.monotonic()
    teacher = open_teacher(protocol, work)
    loader = train_loader(protocol, work, ("topk", "full"), protocol.epochs, seed)
    arms = new_arms(protocol, seed, len(loader) * protocol.epochs)
    first: dict[str, Any] = {}
    for batch in batches_left(loader):
        topk, full = batch.teachers
        live = live_labels(teacher, batch)
        taught = {"alone": (), "live": (live,), "cached_topk": (topk,), "cached_full": (full,)}
        losses = {name: arm.step(replace(batch, teachers=taught[name])) for name, arm in arms.items()}
        if not first:
            p = live.log_probs(protocol.temperature)
            cached = {name: taught[name][0].dense(protocol.temperature).log() for name in ARMS[2:]}
            apart = {name: float(kl_rows(p, log_probs).mean()) for name, log_probs in cached.items()}
            first = {"first_losses": losses, "first_kl_live_to_cached": apart}
    batches = held_out(protocol, teacher)
    tested = {name: measure(arm.network, batches) for name, arm in arms.items()}
    shown = {name: round(100 * found["accuracy"], 2) for name, found in tested.items()}
    print(f"seed {seed}: {shown}", file=sys.stderr, flush=True)  # noqa: T201
    return {"seed": seed, "arms": tested, **first, "seconds": time.monotonic() - began}


def run_seeds(protocol: Protocol, work: Path) -> list[dict[str, Any]]:
    """All seeds, `jobs` at a time."""
    seeds = range(protocol.first_seed, protocol.first_seed + protocol.seeds)
    if protocol.jobs == 1:
        return [run_seed(protocol, work, seed) for seed in seeds]
    with ProcessPoolExecutor(protocol.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(run_seed, [protocol] * len(seeds), [work] * len(seeds), seeds))


def time_arms(protocol: Protocol, work: Path) -> dict[str, list[float]]:
    """Seconds of a training epoch as each arm would run by itself: its own loader, student, teacher or store."""
    teacher = open_teacher(protocol, work)
    seconds: dict[str, list[float]] = {name: [] for name in ARMS}
    stores = {"alone": (), "live": (), "cached_topk": ("topk",), "cached_full": ("full",)}
    for trial in range(protocol.trials):
        arms = new_arms(protocol, trial, 10**6)
        for name in (*ARMS[trial % 4 :], *ARMS[: trial % 4]):  # each arm comes first in turn
            loader = train_loader(protocol, work, stores[name], 1, trial)
            began = time.perf_counter()
            for batch in loader:
                arms[name].step(replace(batch, teachers=(live_labels(teacher, batch),)) if name == "live" else batch)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def run_study(protocol: Protocol, work: Path, command: str) -> dict[str, Any]:
    """Teacher, stores, seeds, timing; everything that the report says, as plain data."""
    torch.set_num_threads(protocol.jobs)
    make_teacher(protocol, work)
    torch.set_num_threads(1)
    stores = make_stores(protocol, work)
    teacher = open_teacher(protocol, work)
    tested = measure(teacher.network, held_out(protocol, teacher))
    runs = run_seeds(protocol, work)
    seconds = time_arms(protocol, work)
    versions = {name: version(name) for name in ("kdcache", "torch", "torchvision", "numpy")}
    return {
        "command": command,
        "protocol": {**asdict(protocol), "data": _shown(protocol.data)},
        "device": "cpu, one thread a student",
        "versions": {"python": platform.python_version(), **versions},
        "parameters": {"teacher": _size(teacher.network), "student": _size(small_student(side=protocol.side))},
        "test_rows": len(open_data(protocol.data, {"split": "test"})),
        "teacher": tested,
        "stores": stores,
        "seeds": runs,
        **summarise(runs, ARMS, margin=protocol.margin),
        "epoch_seconds": {name: {"median": median(each), "trials": each} for name, each in seconds.items()},
        "epoch_ratio_to_alone": {name: median(each) / median(seconds["alone"]) for name, each in seconds.items()},
    }


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _shown(argument: str) -> str:
    """An argument without this machine's folders."""
    head, colon, place = argument.rpartition(":")
    return f"{head}{colon}FOLDER" if Path(place).is_absolute() else argument


def main(arguments: list[str]) -> dict[str, Any]:
    """Parse, run, write, print."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.live_vs_cached", description=__doc__)
    for each in fields(Protocol):
        given = {"required": True} if each.default is MISSING else {"default": each.default}
        parser.add_argument("--" + each.name.replace("_", "-"), type=each.type, help=each.metadata["help"], **given)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and the plot")
    parser.add_argument("--work", type=Path, help="folder for teacher and stores, kept; a temporary one by default")
    parsed = vars(parser.parse_args(arguments))
    out, work = parsed.pop("out"), parsed.pop("work")
    command = " ".join(["python -m tests.benchmarks.live_vs_cached", *map(_shown, arguments)])
    with tempfile.TemporaryDirectory() as temporary:
        study = run_study(Protocol(**parsed), work or Path(temporary), command)
    out.mkdir(parents=True, exist_ok=True)
    write_json(study, out / "live_vs_cached.json")
    plot(study, out / "live_vs_cached.png")
    print(markdown(study))  # noqa: T201
    return study


if __name__ == "__main__":
    main(sys.argv[1:])
