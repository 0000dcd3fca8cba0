"""Livanos et al. 2024: models that each lack a class teach one another, by rows that one has right."""

import hashlib
from typing import Any

import numpy as np

from kdcache.pipelines.studies.bench import Arms, Bench, BySeed
from kdcache.pipelines.studies.claims import Claim, Findings, accuracies
from kdcache.pipelines.studies.peers import make_rows
from kdcache.pipelines.studies.study import Study
from kdcache.views.sources import open_data

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
        "Each model is a peer of the others, so what seeds give is not independent.",
        "The same rows unchanged, with their labels, are our control.",
    ),
    run=run,
    minutes=2,
    draws=True,
    baseline="lacking",
    own_teacher="none",
    why={
        "control": "The same rows, unchanged and with their labels, raise a model as much: the class that it lacks "
        "comes back by the rows themselves. The paper has no such control.",
        "whole": "The rows that come from peers are of a pool that the model without a gap never sees: they give "
        "more than the class that was missing.",
    },
)
