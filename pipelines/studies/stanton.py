"""Stanton et al. 2021: does knowledge distillation really work? Fidelity to a teacher, to ensembles, with more data."""

from kdcache.pipelines.studies.bench import Arms, Bench, Measures, Network, Runs
from kdcache.pipelines.studies.claims import Claim, Findings
from kdcache.pipelines.studies.study import Study

ROWS, EPOCHS, MEMBERS = 3_000, 32, 6
SMALL = (200, 2_000, 20_000)  # rows that students see of the answers of a teacher of 200 rows
SAMPLES = 100_000  # that each of these students sees, whatever its rows
MEASURES = ("agreement", "kl_to_teacher", "accuracy", "ece")
CLAIMS = {
    "temperature": Claim("T = 4 raises test agreement over T = 1"),
    "temperature_kl": Claim("T = 4 lowers KL(teacher || student) on test rows", points=False),
    "members": Claim("five members raise test agreement with the ensemble over one"),
    "members_accuracy": Claim("five members leave accuracy as it is", direction="same", margin=0.005),
    "calibrated": Claim("five members, the most faithful, make the better calibrated student: ECE under that of one"),
    "data": Claim("four times the rows, at equal steps, raise test agreement"),
    "data_train": Claim("four times the rows, at equal steps, lower train agreement"),
    "own": Claim("the student agrees more with its teacher than that of an independent teacher does"),
    "identical": Claim("a teacher of 200 rows: 20,000 rows raise agreement over 200", paper="to about 99 %"),
    "no_gain": Claim("a teacher of 200 rows: that leaves accuracy as it is", direction="same", margin=0.01),
}


def run(bench: Bench) -> Findings:
    network = bench.mlp(64)
    teachers = bench.members(network, MEMBERS, ROWS, EPOCHS)
    train = bench.stores(teachers, bench.data.part(ROWS))
    test = bench.stores(teachers, bench.data.test_set)
    more = bench.store(teachers[0], bench.data.part(4 * ROWS))
    whole = {"set": {"w_ce": 0.0, "w_kd": 1.0}, "combine": "predictions"}
    arms: Arms = {
        "T 1, one": {**whole, "store": train[:1], "temperature": 1.0},
        "T 4, one": {**whole, "store": train[:1], "temperature": 4.0},
        "T 4, three": {**whole, "store": train[:3], "temperature": 4.0},
        "T 4, five": {**whole, "store": train[:5], "temperature": 4.0},
        "T 4, independent": {**whole, "store": train[5:], "temperature": 4.0},
    }
    runs = bench.students(arms, network, rows=ROWS, epochs=EPOCHS)
    wider: Arms = {"T 4, 4 x rows": {**whole, "store": (more,), "temperature": 4.0}}
    runs |= bench.students(wider, network, rows=4 * ROWS, epochs=max(EPOCHS // 4, 1))
    held = {1: ("T 1, one", "T 4, one", "T 4, independent", "T 4, 4 x rows"), 3: ("T 4, three",), 5: ("T 4, five",)}
    values: Measures = {}
    for count, names in held.items():
        chosen = {name: runs[name] for name in names}
        values |= bench.compared(chosen, test[:count], MEASURES, combine="predictions" if count > 1 else None)
    ones = {name: runs[name] for name in ("T 4, one", "T 4, 4 x rows")}
    seen = bench.compared(ones, train[:1], ("agreement",), rows=bench.data.part(ROWS))
    one, five = values["T 4, one"], values["T 4, five"]
    few = _of_a_small_teacher(bench, bench.convnet(6))
    return Findings(
        arms={**values, **few},
        evidence={
            "temperature": one["agreement"] - values["T 1, one"]["agreement"],
            "temperature_kl": values["T 1, one"]["kl_to_teacher"] - one["kl_to_teacher"],
            "members": five["agreement"] - one["agreement"],
            "members_accuracy": five["accuracy"] - one["accuracy"],
            "calibrated": one["ece"] - five["ece"],
            "data": values["T 4, 4 x rows"]["agreement"] - one["agreement"],
            "data_train": seen["T 4, one"]["agreement"] - seen["T 4, 4 x rows"]["agreement"],
            "own": one["agreement"] - values["T 4, independent"]["agreement"],
            "identical": few[_name(SMALL[-1])]["agreement"] - few[_name(SMALL[0])]["agreement"],
            "no_gain": few[_name(SMALL[-1])]["accuracy"] - few[_name(SMALL[0])]["accuracy"],
        },
    )


def _of_a_small_teacher(bench: Bench, network: Network) -> Measures:
    """Measures of students that see few or many rows of the answers of a teacher of few rows."""
    teacher = bench.teacher(network, rows=SMALL[0], epochs=100)
    test = bench.store(teacher, bench.data.test_set)
    runs: Runs = {}
    for rows in SMALL:
        store = bench.store(teacher, bench.data.part(rows))
        arm: Arms = {_name(rows): {"store": (store,), "set": {"w_ce": 0.0, "w_kd": 1.0}, "temperature": 4.0}}
        runs |= bench.students(arm, network, rows=rows, epochs=max(SAMPLES // rows, 1))
    return bench.compared(runs, (test,), MEASURES)


def _name(rows: int) -> str:
    return f"of 200, on {rows:,}"


STUDY = Study(
    name="stanton",
    row=0,
    title="Does Knowledge Distillation Really Work?",
    paper="Stanton et al. 2021, arXiv 2106.05945",
    question="students do not match their teachers; more members and data raise fidelity, not accuracy",
    claims=CLAIMS,
    differences=(
        "The paper distils ResNets on CIFAR-100 and LeNets on MNIST; here perceptrons and small convolutional "
        "networks on {data}.",
        "More data are four times the rows at equal steps; the paper adds rows of a GAN and mixup.",
        "One set of six teachers stands for all: intervals are over students' seeds.",
        "The teacher of 200 rows is a convolutional network of two stages, with batch norm, in place of LeNet-5.",
    ),
    run=run,
    minutes=5,
    baseline="T 4, one",
    measure="agreement",
    own_teacher="untrained",
    own_sizes=False,
    fewest_rows=SMALL[-1],
    why={
        "calibrated": "Students of one teacher and of five are calibrated within .1 points of each other, and both "
        "as well as their teachers: with an ECE of 2 % there is little for fidelity to repair.",
        "data": "At equal steps the student sees each row a quarter as often, and agrees less with the teacher on "
        "them (row below), but on test rows neither more nor less: 97.4 % leave little room, and 3,000 rows of 14 x "
        "14 pixels already pin a perceptron of 64 units down.",
        "calibrated, glyphs": "The student of five agrees more with its teachers and is surer of itself than that of "
        "one: an ensemble of overconfident networks, matched closer, hands its confidence on.",
        "no_gain, glyphs": "The means differ by .6 points, but students on 200 rows of 62 letters vary so much that "
        "the interval passes the margin of one point.",
    },
)
