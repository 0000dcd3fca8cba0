"""Müller et al. 2020: with few classes a teacher says more where it divides each into subclasses of its own making."""

from typing import Any

import numpy as np

from kdcache.pipelines.studies.bench import Arms, Bench
from kdcache.pipelines.studies.claims import Claim, Findings, accuracies
from kdcache.pipelines.studies.study import Study
from kdcache.store.store import Store

EPOCHS = 12  # of teachers, the paper's number
CLAIMS = {
    "subclass": Claim("subclass distillation is above conventional KD", paper="99.01 against 98.72 %"),
    "kd": Claim("conventional KD is above labels alone", paper="98.72 against 98.53 %"),
    "hidden": Claim("the top subclass tells a row's hidden class more often than its class alone would"),
}


def run(bench: Bench) -> Findings:
    count = -(-bench.data.train.classes // 2)  # hidden classes in each of two halves
    halves: dict[str, Any] = {"groups": count}
    test = {**bench.data.test_set, **halves}
    both: dict[str, Any] = {"part": halves, "val_set": test}
    network, rows = bench.mlp(512, depth=2), bench.data.part(500, **halves)
    plain = bench.teachers(network, 20_000, EPOCHS, **both)
    divided = bench.teachers(network, 20_000, EPOCHS, subclasses=count, objective="subclass", **both)
    kd: dict[str, Any] = {"set": {"w_ce": 0.5, "w_kd": 0.5}, "temperature": 4.0}
    store = bench.stores(divided, rows)
    arms: Arms = {
        "alone": {},
        "kd": {**kd, "store": bench.stores(plain, rows)},
        "kd, classes of the subclass teacher": {**kd, "store": store, "subclasses": 1},
        "subclass kd": {**kd, "store": store},
    }
    accuracy = bench.validated(bench.students(arms, bench.mlp(32), rows=500, epochs=80, **both))
    stores, unknown = bench.stores(divided, test), np.full(len(bench.seeds), np.nan)
    shares = bench.known(lambda: np.array([_told(bench, path) for path in stores]), unknown)
    used = bench.known(lambda: np.array([len(np.unique(_top_subclasses(path))) for path in stores]), unknown)
    hidden = bench.data.test.labels
    taught = bench.validated({"plain": bench.runs_of(plain), "divided": bench.runs_of(divided)})
    return Findings(
        arms=accuracies(accuracy),
        evidence={
            "subclass": accuracy["subclass kd"] - accuracy["kd"],
            "kd": accuracy["kd"] - accuracy["alone"],
            "hidden": shares - _told_share(hidden, hidden // count),
        },
        notes=(
            f"teachers: conventional {100 * taught['plain'].mean():.2f} %, of subclasses "
            f"{100 * taught['divided'].mean():.2f} %",
            f"of {2 * count} subclasses {used.mean():.1f} are the top one of a test row ({used.min():.0f} to "
            f"{used.max():.0f} over seeds), and tell the hidden class of {100 * shares.mean():.1f} % of them",
        ),
    )


def _told(bench: Bench, path: str) -> float:
    """The share of test rows whose hidden class is the commonest one of their top subclass."""
    return _told_share(bench.data.test.labels[Store.open(path).order], _top_subclasses(path))


def _top_subclasses(path: str) -> Any:
    """[N] the top subclass of each row of a store."""
    store = Store.open(path)
    return np.asarray(store.read(0, np.arange(store.rows)).top_class)


def _told_share(hidden: Any, parts: Any) -> float:
    """The share of every second row that has the commonest hidden class of its part, which the other rows tell: on the
    same rows finer parts would tell more by themselves."""
    counts = np.zeros((parts.max() + 1, hidden.max() + 1))
    np.add.at(counts, (parts[::2], hidden[::2]), 1)
    return float((counts.argmax(axis=1)[parts[1::2]] == hidden[1::2]).mean())


STUDY = Study(
    name="mueller",
    row=19,
    title="Subclass Distillation",
    paper="Müller et al. 2020, arXiv 2002.03936",
    question="where classes are few, subclasses that a teacher makes up carry more to a student",
    claims=CLAIMS,
    differences=(
        "The paper's two classes are MNIST's digits 0-4 and 5-9; here the first and the second half of the classes of "
        "{data}.",
        "Teacher and student of the paper see the same rows; here the teacher saw 20,000 and students see 500.",
        "The paper's teacher is convolutional with dropout, its student a perceptron of 784 units, both trained for 12 "
        "epochs by Adam in batches of 256; here perceptrons of 512 and of 32 units by SGD in batches of 128 and 64, "
        "students for 80 epochs. As there: T 4, half the loss by labels, beta 1, S 5.",
        "The subclass loss follows the paper's formula; whatever its code does beside it was not at hand.",
        "The share of rows whose hidden class their top subclass tells is ours: the paper shows it by pictures.",
    ),
    run=run,
    minutes=3,
    fewest_classes=4,
    baseline="alone",
    own_teacher="none",
    why={
        "subclass": "By its classes alone the same teacher teaches as well as the conventional one (arms above): to "
        "learn ten outputs may cost a student of 32 units and 500 rows more than their word adds.",
        "kd, glyphs": "The conventional teacher's ten answers of a class of many letters say little that the label "
        "does not; what the subclasses say is worth 2.7 points here.",
    },
)
