"""Livanos et al. 2024: models that each lack a class teach one another, by rows that one has right."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kdcache.errors import InvalidInputError
from kdcache.networks.build import build_network
from kdcache.networks.weights import load_weights
from kdcache.pipelines.settings import ExtractSettings
from kdcache.pipelines.studies.bench import Arms, Bench, BySeed
from kdcache.pipelines.studies.claims import Claim, Findings, accuracies
from kdcache.pipelines.studies.counterfactuals import counterfactuals, save
from kdcache.pipelines.studies.study import Study
from kdcache.store.store import Store
from kdcache.training.saved_networks import spelled_out
from kdcache.views.sources import open_data
from kdcache.views.transforms import build_transform

ROWS, EPOCHS, POOL = 5_000, 12, 3_000
JOINED = "kdcache.pipelines.studies.counterfactuals:joined"
CLAIMS = {
    "gain": Claim("counterfactuals of peers raise a model that lacks a class", paper="median 76 to 83"),
    "control": Claim("they raise it more than the same rows unchanged"),
    "whole": Claim("it stays below a model that lacks none", paper="83 against 86"),
}


def run(bench: Bench) -> Findings:
    data, network, pool = bench.data, bench.mlp(128), bench.data.held_out(POOL)
    listed = [rows_without(bench, number % data.train.classes) for number in range(len(bench.seeds))]
    lacking = {**data.train_set, "rows": BySeed(listed)}
    settings: dict[str, Any] = {"lr": 0.03, "batch_size": 128}
    first: Arms = {"lacking": {}}
    runs = bench.students(first, network, ROWS, EPOCHS, data_set=lacking, **settings)
    models = [f"run:{run}@last" for run in runs["lacking"]]
    answers = bench.stores(BySeed(models), pool, min_accuracy=0.0)
    names = hashlib.sha256(" ".join([*models, str(pool)]).replace(f"{bench.pieces.folder}/", "").encode()).hexdigest()
    files = {
        kind: [data.folder.parent / "added" / f"{names[:8]}-{kind}-{number}.npz" for number in range(len(models))]
        for kind in ("counterfactual", "unchanged")
    }
    if not bench.pieces.dry:
        make_rows(bench, models, list(answers), pool, files)
    whole: Arms = {"whole": {}}
    runs |= bench.students(whole, network, ROWS, EPOCHS, **settings)
    for kind, paths in files.items():
        added = {"base": data.spec, **lacking, "added": BySeed(path.as_posix() for path in paths)}
        arm: Arms = {kind: {"data": JOINED, "data_set": added, "val_data": data.spec}}
        runs |= bench.students(arm, network, ROWS, EPOCHS, **settings)
    accuracy = bench.validated(runs)
    return Findings(
        arms=accuracies(accuracy),
        evidence={
            "gain": accuracy["counterfactual"] - accuracy["lacking"],
            "control": accuracy["counterfactual"] - accuracy["unchanged"],
            "whole": accuracy["whole"] - accuracy["counterfactual"],
        },
        notes=("each seed is a model, which lacks the class of its own number",),
    )


def rows_without(bench: Bench, number: int) -> str:
    """The file of the training rows that are of another class than `number`."""
    part = open_data(bench.data.spec, bench.data.part(ROWS))
    return bench.data.write_rows([part.ids[index] for index in np.flatnonzero(part.labels != number).tolist()])


def make_rows(
    bench: Bench, models: Sequence[str], answers: Sequence[str], pool: dict[str, Any], files: dict[str, list[Path]]
) -> None:
    """Write the rows that each model is given: those of the pool on which it is wrong and a peer is right, as that
    peer's counterfactuals and unchanged. A row comes from the first peer that is right, in an order of the model's own.
    """
    data = open_data(bench.data.spec, pool)
    right = np.stack([decisions(store) == data.labels for store in answers])
    transform, _ = build_transform(bench.data.transform, bench.data.transform_set)
    for number, (path, control) in enumerate(zip(files["counterfactual"], files["unchanged"], strict=True)):
        if path.exists() and control.exists():
            continue
        bench.pieces.progress("making counterfactuals", number, len(models))
        bench.pieces.stop.check("run the same command again to go on")
        taken, views, changed, labels = right[number].copy(), [], [], []
        for peer in np.random.default_rng(number).permutation(len(models)).tolist():
            chosen = np.flatnonzero(right[peer] & ~taken)
            if peer == number or not len(chosen):
                continue
            taken[chosen] = True
            rows = torch.stack([torch.as_tensor(transform(data.samples[index][0])) for index in chosen.tolist()])
            views.append(rows)
            changed.append(counterfactuals(network_of(models[peer], data.classes), rows))
            labels += data.labels[chosen].tolist()
        if not views:
            raise InvalidInputError(
                f"no model is right on a row of the pool that model {number} has wrong: there is nothing to teach; "
                "take more rows, or other networks"
            )
        save(control, torch.cat(views), labels)
        save(path, torch.cat(changed), labels)


def decisions(store: str) -> npt.NDArray[np.int64]:
    """The top class of each sample of a store's view 0, in the order of the data set."""
    opened = Store.open(store)
    classes = np.empty(opened.rows, dtype=np.int64)
    classes[opened.order] = opened.read(0, np.arange(opened.rows)).top_class
    return classes


def network_of(run: str, classes: int) -> torch.nn.Module:
    """The network of a run, in eval mode."""
    spelled = spelled_out(ExtractSettings(store="", data="", teacher=run))
    network = build_network(spelled.teacher, spelled.teacher_set, classes, "teacher")
    load_weights(network, spelled.weights, "teacher")
    return network.eval()


STUDY = Study(
    name="livanos",
    row=20,
    title="Cooperative Knowledge Distillation: A Learner Agnostic Approach",
    paper="Livanos et al. 2024, arXiv 2402.05942",
    question="models that each lack a class raise one another by counterfactual rows",
    claims=CLAIMS,
    differences=(
        "The paper has ten models, one round after another; here as many as there are seeds, and one round.",
        "Counterfactuals are of rows held out from all models, by 60 steps of Adam; the paper's take up to 500.",
        "The same rows unchanged, with their labels, are our control.",
    ),
    run=run,
    minutes=5,
    draws=True,
    baseline="lacking",
    own_teacher="none",
)
