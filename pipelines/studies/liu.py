"""Liu et al. 2025: a student of language learns along its teacher's paths, and asks the teacher under a budget."""

from functools import partial
from typing import Any

import numpy as np

from kdcache.pipelines.studies.asking import AskHead, accuracy_at, answers_of
from kdcache.pipelines.studies.bench import Arms, Bench, Network
from kdcache.pipelines.studies.claims import Claim, Findings, Values
from kdcache.pipelines.studies.study import Study
from kdcache.views.sources import open_data

TEACHER_TEXTS, STUDENT_TEXTS, HELD_OUT = 12_500, 3_125, 1_000  # of 32 tokens each
BUDGETS = (0.1, 0.2, 0.3, 0.5)
WAYS = ("head", "entropy", "random")
RATES: dict[str, Any] = {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.01, "batch_size": 16, "clip_grad": 1.0}
TOP_K = 20
CLAIMS = {
    **{
        f"{way}_{100 * budget:.0f}": Claim(f"{100 * budget:.0f} % asked: the ask head is above {text}")
        for way, text in (("random", "random asking"), ("entropy", "asking where the student's entropy is largest"))
        for budget in BUDGETS
    },
    "kd": Claim("KD lowers the NLL of the next token under that of labels alone", points=False),
    "paths": Claim("off-policy path consistency lowers it under that of labels alone", points=False),
}


def run(bench: Bench) -> Findings:
    teacher = bench.teacher(gru(128), TEACHER_TEXTS, epochs=4, **RATES)
    held_out = bench.data.held_out(HELD_OUT)
    places = (bench.data.part(STUDENT_TEXTS), held_out, bench.data.test_set)
    store, *judging = (bench.store(teacher, rows, encoding="topk", top_k=TOP_K) for rows in places)
    arms: Arms = {
        "labels": {},
        "kd": {"store": (store,), "temperature": 1.0, "set": {"w_ce": 0.1, "w_kd": 0.9}},
        "paths": {"store": (store,), "objective": "kdcache.pipelines.studies.paths:PathConsistency"},
    }
    runs = bench.students(arms, gru(32), STUDENT_TEXTS, epochs=10, **RATES)
    nll, accuracy = bench.validated(runs, "nll"), bench.validated(runs)
    unknown = np.full((len(BUDGETS), len(WAYS)), np.nan)
    by_seed = np.stack([
        bench.known(partial(asked, bench, folder, (held_out, bench.data.test_set), tuple(judging)), unknown)
        for folder in bench.as_teachers(runs["kd"])
    ])  # fmt: skip
    at = {(way, budget): by_seed[:, n, m] for n, budget in enumerate(BUDGETS) for m, way in enumerate(WAYS)}
    at_half, alone = at["random", 0.5].mean(), accuracy["kd"].mean()
    notes = (
        f"the teacher alone is right on {100 * (2 * at_half - alone):.2f} % of the test tokens",
        "who asks is the student of KD; random asking is given by its mean",
    )
    return Findings(
        arms={
            **{arm: {"accuracy": accuracy[arm], "nll": nll[arm]} for arm in arms},
            **{f"{way}, {100 * budget:.0f} % asked": {"accuracy": values} for (way, budget), values in at.items()},
        },
        evidence={
            **{
                f"{way}_{100 * budget:.0f}": at["head", budget] - at[way, budget]
                for way in WAYS[1:]
                for budget in BUDGETS
            },
            "kd": nll["labels"] - nll["kd"],
            "paths": nll["labels"] - nll["paths"],
        },
        notes=notes,
    )


def gru(width: int) -> Network:
    """A recurrent network of texts."""
    return Network("kdcache.networks:gru", {"width": width, "tied": False})


def asked(bench: Bench, folder: str, rows: tuple[dict[str, object], ...], stores: tuple[str, ...]) -> Values:
    """Accuracy [budgets, WAYS] on the second of two parts of the data, the ask head fitted on the first; random asking
    by its mean."""
    parts = [open_data(bench.data.spec, part) for part in rows]
    held_out, test = (answers_of(folder, store, data) for store, data in zip(stores, parts, strict=True))
    expected = AskHead.fitted(held_out).expected(test.hidden)
    alone, gain = test.right.mean(), test.gain.mean()
    return np.array([
        [accuracy_at(test, expected, budget), accuracy_at(test, test.entropy, budget), alone + budget * gain]
        for budget in BUDGETS
    ])  # fmt: skip


STUDY = Study(
    name="liu",
    row=14,
    title="Knowledge Distillation with Training Wheels",
    paper="Liu et al. 2025, arXiv 2502.17717",
    question="a student learns along its teacher's paths, and asks it where that gains most",
    claims=CLAIMS,
    differences=(
        "The paper lets language models translate and summarise; here small recurrent networks name the next token of "
        "{data}, by default 1,024 words of the King James Bible in texts of 32.",
        "On-policy learning is not run: it asks the teacher about texts that the student writes, which needs a live "
        "teacher and no store. Paths are those of the data, in steps of one token.",
        "The ask head is our regression, not the paper's constrained reinforcement learning with the budget in the "
        "prompt: on 1,000 held-out texts it learns where the stored answer of the teacher is right and the student "
        "is not. Asking is judged with the text's own words before each token, and changes none that follow.",
        "Of the paper's text no source was at hand: values are log-sum-exps of the student's logits (the unified form "
        "of Nachum et al. 2017), tau is 1, and labels and path consistency weigh a half each. An earlier trial on "
        "other seeds, with a head for values beside the logits, did not show a gain of path consistency.",
        "One teacher stands for all: intervals are over students' seeds. The teacher was trained on texts of which the "
        "student's are a quarter; held-out and test texts lie between them in one book.",
    ),
    run=run,
    minutes=6,
    baseline="kd",
    data="kdcache.pipelines.studies.words:words",
    train_set={"split": "train"},
    val_set={"split": "test"},
    toy_set={"text": "kdcache", "vocabulary": 256},
    reads_texts=True,
)
