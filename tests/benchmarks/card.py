"""The README's card of numbers: one compact table from the JSONs in docs/figures, put between its marks.

    python -m tests.benchmarks.card --write README.md

Without `--write` the card goes to the terminal. Nothing is measured.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from kdcache.pipelines.studies.catalogue import STUDIES
from kdcache.pipelines.studies.outcome import load
from tests.benchmarks import report
from tests.benchmarks.answers import Answer, Results, answered, bytes_a_row, epoch, epoch_live, gather, loss, opening
from tests.benchmarks.blocks import marks, replace_block, table

BLOCK = marks("numbers", "tests.benchmarks.card")
FIGURES = Path("docs/figures")


def accuracy(results: Results, arm: str, subject: str) -> Answer:
    """A student's accuracy, and its paired differences to a live teacher's student and to one without a teacher."""
    study = results.record("live_vs_cached")
    means = {name: values["accuracy"]["mean"] for name, values in study["arms"].items()}
    parts = []
    for other, title in (("live", "live teacher"), ("alone", "no teacher")):
        apart = study["differences"][f"{arm}-{other}"]
        interval = f"{apart['mean']:+.2f}, {apart['low']:+.2f} to {apart['high']:+.2f} points"
        parts.append(f"{title} {means[other]:.2f} % ({interval})")
    return Answer(f"accuracy of a student, {subject}", f"{means[arm]:.2f} %", "; ".join(parts))


def from_top_k(results: Results) -> Answer:
    k = results.record("live_vs_cached")["protocol"]["top_k"]
    return accuracy(results, "cached_topk", f"store of the top {k} of 10 classes")


def from_all(results: Results) -> Answer:
    return accuracy(results, "cached_full", "store of all logits")


def break_even(results: Results) -> Answer:
    total = results.record("sweep_total_time")["total_seconds"]
    last = total["totals"][-1]
    beside = f"teacher in the loop {last['live']:.0f} s; equal at {total['break_even']['one_by_one']:.2f} students"
    subject = f"{last['n']} students, extraction included"
    return Answer(subject, f"{last['store_together']:.0f} s", beside)


def claims(results: Results) -> Answer:
    loaded = [load(results.folder / "studies", name) for name in STUDIES]
    outcomes = [outcome for outcome in loaded if outcome is not None]
    verdicts = [claim.verdict for outcome in outcomes for claim in outcome.claims]
    if not verdicts:
        raise LookupError("studies")
    shown, reversed_ = (verdicts.count(verdict) for verdict in ("shown", "reversed"))
    rest = len(verdicts) - shown - reversed_
    beside = f"of {len(verdicts)} claims; {reversed_} reversed, {rest} not shown"
    systems = len({outcome.row for outcome in outcomes})
    return Answer(f"claims of {systems} published systems, asked again from stores", f"{shown} shown", beside)


LINES = (from_top_k, from_all, bytes_a_row, gather, loss, epoch, epoch_live, break_even, opening, claims)


def card(figures: Path) -> str:
    """The table, and a line of n, device and versions. Lines whose JSONs lack are left out."""
    results = Results(report.read(figures.parent / "performance.md")[0], figures)
    rows = [[answer.subject, answer.ours, answer.beside] for answer in answered(results, LINES)]
    return f"{table(('measured', 'kdcache', 'compared with'), rows)}\n\n{conditions(results)}"


def conditions(results: Results) -> str:
    """One line on devices and versions."""
    study: dict[str, Any] = results.record("live_vs_cached")
    runs = results.record("performance")["runs"]
    names = ("python", "kdcache", "torch", "numpy", "zarr")
    versions = ", ".join(f"{name} {runs[0]['versions'][name]}" for name in names if name in runs[0]["versions"])
    rows = f"{study['protocol']['rows']:,} training and {study['test_rows']:,} test rows of Fashion-MNIST"
    return (
        f"Accuracy: n = {len(study['seeds'])} pairs of seeds, {rows}; intervals are of 95 %, times are CPU time. "
        f"{runs[0]['device']}; {versions}. Made by `python -m tests.benchmarks.card --write README.md`."
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the JSONs")
    parser.add_argument("--write", type=Path, metavar="README.md", help="file whose block is replaced")
    given = parser.parse_args(arguments)
    text = card(given.figures)
    if given.write is None:
        sys.stdout.write(f"{text}\n")
    elif BLOCK[0] in given.write.read_text():
        replace_block(given.write, BLOCK, text)
    else:
        sys.stderr.write(f"{given.write} has no marks {BLOCK[0]} and {BLOCK[1]}; it is left as it is\n")


if __name__ == "__main__":
    main()
