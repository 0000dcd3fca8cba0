"""Yang & Song 2021: a teacher that is calibrated first teaches better, the more so the bigger it is."""

from kdcache.pipelines.studies.bench import Arms, Bench
from kdcache.pipelines.studies.claims import Claim, Findings
from kdcache.pipelines.studies.study import Study

ROWS, EPOCHS, HELD_OUT = 3_000, 30, 5_000
WIDTHS = (16, 64, 256, 512)
TEMPERATURES = ("1", "2", "calibrated")
CLAIMS = {
    "overconfident": Claim("bigger teachers are worse calibrated: the teacher's ECE a doubling of its width"),
    "rises": Claim("at T*, student accuracy rises with teacher size: a doubling of its width"),
    "steeper": Claim("it rises more at T* than at T = 1"),
    "gain": Claim("T* is above T = 1 from the biggest teacher"),
    "control": Claim("T* is above a plain T = 2 from the biggest teacher (control)"),
}


def run(bench: Bench) -> Findings:
    arms: dict[str, dict[str, object]] = {"alone": {}}
    errors = []
    for width in WIDTHS:
        teachers = bench.teachers(bench.mlp(width, depth=2), ROWS, epochs=60)
        errors.append(bench.validated({"teacher": bench.runs_of(teachers)}, "ece")["teacher"])
        stores = bench.stores(teachers, bench.data.part(ROWS))
        held_out = bench.stores(teachers, bench.data.held_out(HELD_OUT))
        for temperature in TEMPERATURES:
            arm: dict[str, object] = {"store": stores, "set": {"w_ce": 0.0, "w_kd": 1.0}, "temperature": temperature}
            fit = {"calibration_store": held_out} if temperature == "calibrated" else {}
            arms[_name(width, temperature)] = {**arm, **fit}
    students: Arms = arms
    runs = bench.students(students, bench.mlp(12), rows=ROWS, epochs=EPOCHS)
    accuracy, error = bench.validated(runs), bench.validated(runs, "ece")
    by = {temperature: [accuracy[_name(width, temperature)] for width in WIDTHS] for temperature in TEMPERATURES}
    return Findings(
        arms={
            **{arm: {"accuracy": values, "ece": error[arm]} for arm, values in accuracy.items()},
            **{f"teacher {width}": {"ece": values} for width, values in zip(WIDTHS, errors, strict=True)},
        },
        evidence={
            "overconfident": bench.slope(WIDTHS, errors),
            "rises": bench.slope(WIDTHS, by["calibrated"]),
            "steeper": bench.slope(WIDTHS, by["calibrated"]) - bench.slope(WIDTHS, by["1"]),
            "gain": by["calibrated"][-1] - by["1"][-1],
            "control": by["calibrated"][-1] - by["2"][-1],
        },
    )


def _name(width: int, temperature: str) -> str:
    return f"kd {width}, T {'*' if temperature == 'calibrated' else temperature}"


STUDY = Study(
    name="yang",
    row=10,
    title="Knowledge Distillation from Model Calibration",
    paper="Yang & Song 2021",
    question="calibrate the teacher on held-out rows first, and bigger teachers teach better",
    claims=CLAIMS,
    differences=(
        "The paper distils ResNets on CIFAR-10 and Fashion-MNIST; here perceptrons of two hidden layers teach one of "
        "12 units on 3,000 rows of {data}.",
        "The paper compares with uncalibrated teachers alone; a plain T = 2 is our control.",
    ),
    run=run,
    minutes=5,
    baseline="alone",
    own_teacher="none",
    why={
        "rises": "With 10 classes the teachers of 16 and of 512 units answer nearly alike, and all of their students "
        "end within .3 points of labels alone: a student of 12 units has no room for what a bigger teacher knows.",
        "steeper": "Where accuracy does not rise with the teacher's size at T*, it cannot rise more than at T = 1.",
        "gain": "The biggest teacher is overconfident by 8 points of ECE, and its T* of 1.7 to 1.8 softens it; "
        "students of 12 units take the same classes from either target.",
        "control": "T* is 1.5 to 1.8, so a plain T = 2 is nearly the same target: the control, which the paper "
        "lacks, shows nothing of T* but its softness.",
        "overconfident, glyphs": "Teachers of 64 units and more have the same ECE within .3 points, and the smallest "
        "one's is .6 below theirs: with 62 classes size says little of calibration here.",
        "rises, glyphs": "A student of 12 units for 62 classes learns unsteadily: in several arms one seed of eight "
        "ends at 57 to 74 % where most end at 76 to 82, and no interval is narrow.",
        "steeper, glyphs": "As above; the mean is on the claimed side.",
        "gain, glyphs": "As above; the mean is on the claimed side.",
        "control, glyphs": "As above: the one seed decides the mean.",
    },
)
