"""The learning of students from each kind of soft labels, at their bytes a row: full, draws, top-k with each tail.

    python -m tests.benchmarks.targets --text kjv.txt --fashion /usr/share/datasets/fashion-mnist
    python -m tests.benchmarks.targets --rewrite    # nothing measured: docs/language_labels.md from targets.json

Text: the tokenizer, teacher and protocol of `kdcache demo --text` (a GRU of 128 that read 3,072 texts of 128 tokens,
students of 32 on 768 of them, w_ce .1, w_kd .9, T 1); perplexity of 192 texts that nobody learned from. Pictures:
EfficientNet-lite0 of ImageNet asked about Fashion-MNIST at 64 pixels, so that 1,000 classes are answered, and students
of 64 pixels that learn from its answers alone; cross-entropy with its full answers on rows that they did not see.

Error of the gradient: of KD at T 1 with respect to the logits of a student that was trained on labels alone, or of one
that knows nothing on pictures: |g - g_full| / |g_full| over rows, and of the mean over rows, which tells bias.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcache import KD, LabelOptions, Loader, Objective, Store, extract, open_data, train
from kdcache.networks.build import build_network
from kdcache.networks.weights import load_weights
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.tokens import counted_rows
from kdcache.pipelines.demos import text as demo_text
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.views.built_in import load_fashion_mnist
from tests.benchmarks.paired_report import difference
from tests.benchmarks.targets_page import write_page
from tests.kits.photographs import imagenet_teacher

SIDE, PICTURES, TEST_PICTURES = 64, 1500, 500
GRADIENT_ROWS = 2048
FIRST_SEED = 1000
SUBJECTS = ("text", "pictures")
Line = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """Soft labels of one kind: how they are extracted, and how a student takes them."""

    name: str
    encoding: dict[str, Any]
    tail: str = "uniform"

    @property
    def store(self) -> str:
        """The name of its store, which kinds of one encoding share."""
        return "-".join(str(value) for value in self.encoding.values())


@dataclass(frozen=True)
class Subject:
    """A teacher with its data: settings of the extraction, of the students, and the measure that they are judged by."""

    name: str
    teacher: dict[str, Any]
    student: dict[str, Any]
    measure: str
    kinds: tuple[Kind, ...]
    alone: bool = False


def kinds(ks: Sequence[int], draws: Sequence[int]) -> tuple[Kind, ...]:
    """Full logits, draws, and the best k with each tail."""
    drawn = [Kind(f"{n} draws", {"encoding": "sampled", "draws": n, "draw_temperature": 1.0}) for n in draws]
    tails = {"uniform": "uniform tail", "class-mean": "class-mean tail", "ghost": "ghost tail", "none": "renormalised"}
    best = [Kind(f"top {k}, {name}", {"encoding": "topk", "top_k": k}, t) for k in ks for t, name in tails.items()]
    return (Kind("full", {"encoding": "full"}), *drawn, *best)


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Pictures of Fashion-MNIST, 64 pixels a side in three channels, without labels."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images)
        self.labels = [-1] * len(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.images[index].float().reshape(1, 1, 28, 28)
        large = nn.functional.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        return large[0].round().to(torch.uint8).expand(3, -1, -1).contiguous(), -1


def pictures(path: str, split: str = "train") -> Pictures:
    count = PICTURES if split == "train" else TEST_PICTURES
    return Pictures(np.asarray(load_fashion_mnist(Path(path), split).samples.images[:count]))


def teacher() -> nn.Module:
    """EfficientNet-lite0 with its ImageNet weights."""
    network: nn.Module = imagenet_teacher()
    return network


def on_text(folder: Path, text: Path) -> Subject:
    """The protocol of the demo on text, with its teacher in `folder`."""
    summary = demo_text.demo_text(folder, text)
    source = {"tokenizer": str(folder / "bpe.json"), "sequence": demo_text.SEQUENCE}
    count = len(open_data(f"text:{text}", source).ids)
    data = {"data": f"text:{text}", "data_set": source | {"range": f"0:{demo_text.STUDENT_TEXTS}"}, "workers": 0}
    student = {"student": demo_text.NETWORK, "student_set": demo_text.STUDENT, **data, **demo_text.RATES, "epochs": 6}
    student |= {
        "val_set": {"range": f"{count - demo_text.VALIDATION_TEXTS}:{count}"},
        "set": {"w_ce": 0.1, "w_kd": 0.9},
    }
    asked = {"teacher": f"run:{folder / 'teacher'}@last", **data}
    name = f"tokens of 1,024, teacher's perplexity {summary.rows[0].perplexity:.1f}"
    return Subject(name, asked, student, "perplexity", kinds((8, 20), (20, 50)), alone=True)


def on_pictures(folder: Path, fashion: str) -> Subject:
    """The answers of ImageNet's classes to pictures of clothes; the store of the test pictures lies in `folder`."""
    here = "tests.benchmarks.targets"
    data = {"data": f"{here}:pictures", "data_set": {"path": fashion}, "workers": 0}
    asked = {"teacher": f"{here}:teacher", **data, "mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    held_out = {"store": str(folder / "test.kd"), "data_set": {"path": fashion, "split": "test"}, "encoding": "full"}
    extract(ExtractSettings.model_validate(asked | held_out))
    network = {"student": "kdcache.networks:convnet", "student_set": {"channels": 3, "width": 8, "depth": 3}}
    student = {**network, **data, "val_set": {"split": "test"}, "val_store": (str(folder / "test.kd"),)}
    student |= {"epochs": 6, "batch_size": 64, "optimizer": "adamw", "lr": 3e-3, "set": {"w_ce": 0.0, "w_kd": 1.0}}
    return Subject("pictures of 1,000 classes", asked, student, "kl_to_teacher", kinds((8, 20), (20, 50)))


def run_seed(subject: Subject, folder: Path, seed: int) -> dict[str, float]:
    """The measure of a student of each kind, and of one that learns from labels alone."""
    torch.set_num_threads(1)
    values = {}
    for kind in (*subject.kinds, *([None] if subject.alone else [])):
        name = kind.name if kind else "labels alone"
        taught = {"store": (str(folder / kind.store),), "tail": kind.tail, "temperature": 1.0} if kind else {}
        run = folder / f"runs-{seed}" / name.replace(" ", "-").replace(",", "")
        settings = subject.student | taught | {"run": str(run), "seed": seed, "val_epochs": 0}
        if kind is None:
            settings |= {"set": {}}
        values[name] = train(TrainSettings.model_validate(settings)).validation[subject.measure]
    return values


def gradient_errors(subject: Subject, folder: Path) -> dict[str, tuple[float, float]]:
    """By kind the relative error of KD's gradient at T 1, over rows and of their mean."""
    data = open_data(subject.student["data"], subject.student["data_set"])
    classes = Store.open(folder / subject.kinds[0].store).identity.teacher.classes
    torch.manual_seed(FIRST_SEED)
    network = build_network(subject.student["student"], subject.student["student_set"], classes, "student").eval()
    weights = folder / f"runs-{FIRST_SEED}" / "labels-alone/weights/last.safetensors"
    if weights.exists():
        load_weights(network, str(weights), "student")
    gradients = {}
    for kind in subject.kinds:
        store = Store.open(folder / kind.store)
        options = LabelOptions(class_means=kind.tail == "class-mean")
        loader, parts, count = Loader(data, [store], batch_size=16, epochs=1, labels=options), [], 0
        for batch in loader:
            with torch.no_grad():
                outputs, rows = counted_rows(Outputs(network(batch.images)), batch)
            logits = outputs.logits.requires_grad_()
            loss = Objective(KD(1.0), w_ce=0.0, w_kd=1.0, tail=kind.tail)(logits, rows)  # type: ignore[arg-type]
            parts.append(torch.autograd.grad(loss, logits)[0] * len(logits))
            count += len(logits)
            if count >= GRADIENT_ROWS:
                break
        loader.close()
        gradients[kind.name] = torch.cat(parts)[:GRADIENT_ROWS]
    full = gradients["full"]
    return {
        name: (
            float((gradient - full).norm() / full.norm()),
            float((gradient - full).mean(dim=0).norm() / full.mean(dim=0).norm()),
        )
        for name, gradient in gradients.items()
    }


def measure(subject: Subject, folder: Path, trials: int) -> list[Line]:
    """The lines of a subject's table."""
    size = {}
    for kind in subject.kinds:
        if kind.store not in size:
            settings = {"store": str(folder / kind.store), **subject.teacher, **kind.encoding}
            size[kind.store] = extract(ExtractSettings.model_validate(settings)).bytes_a_row
    seeds = range(FIRST_SEED, FIRST_SEED + trials)
    with ProcessPoolExecutor(2) as pool:
        runs = list(pool.map(run_seed, *zip(*[(subject, folder, seed) for seed in seeds], strict=True)))
    errors, by_name = gradient_errors(subject, folder), {kind.name: kind for kind in subject.kinds}
    lines = []
    for name in runs[0]:
        values = [run[name] for run in runs]
        apart = difference(values, [run["full"] for run in runs])
        gain = {}
        if subject.alone:  # the share of what full logits gain on labels alone, in nats
            nats = {key: np.mean([np.log(run[key]) for run in runs]) for key in (name, "full", "labels alone")}
            gain = {"gain": float((nats["labels alone"] - nats[name]) / (nats["labels alone"] - nats["full"]))}
        bytes_a_row = size[by_name[name].store] if name in by_name else 0.0
        lines.append({"name": name, "bytes": bytes_a_row, "values": values, "apart": apart, **gain} | (
            {"row_error": errors[name][0], "mean_error": errors[name][1]} if name in errors else {}
        ))  # fmt: skip
    return sorted(lines, key=lambda line: -line["bytes"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="file of text, such as that of bible-kjv-text")
    parser.add_argument("--fashion", help="folder of Fashion-MNIST's files")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--work", type=Path, help="folder of stores and runs, which is kept, and gone on with")
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"), help="folder of the JSON")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/language_labels.md"), help="page whose tables are replaced"
    )
    parser.add_argument("--rewrite", action="store_true", help="measure nothing: write the tables from the JSON")
    given = parser.parse_args(arguments)
    place = given.figures / "targets.json"
    if not given.rewrite:
        if given.text is None or given.fashion is None:
            parser.error("give --text and --fashion, or --rewrite")
        place.write_text(json.dumps(measured(given.text, given.fashion, given.trials, given.work), indent=1) + "\n")
    write_page(given.out, json.loads(place.read_text()))


def measured(text: Path, fashion: str, trials: int, work: Path | None) -> dict[str, Any]:
    """The record of all subjects, with the conditions of the run."""
    record: dict[str, Any] = {
        "conditions": f"{platform.machine()} CPU, torch {version('torch')}, numpy {version('numpy')}, {trials} seeds "
        f"from {FIRST_SEED} on; `python -m tests.benchmarks.targets --text kjv.txt --fashion FOLDER`"
    }
    with tempfile.TemporaryDirectory() as name:
        for subject_name in SUBJECTS:
            place = (work or Path(name)) / subject_name
            place.mkdir(parents=True, exist_ok=True)
            is_text = subject_name == "text"
            subject = on_text(place / "demo", text) if is_text else on_pictures(place, fashion)
            lines = measure(subject, place, trials)
            record[subject_name] = {"subject": subject.name, "measure": subject.measure, "lines": lines}
    return record


if __name__ == "__main__":
    main()
