"""`make bench`: every benchmark in a process of its own, a verdict a line, docs/performance.md and its tables.

python -m tests.benchmarks [NAME ...] [--quick] [--strict] [--out PAGE.md]
python -m tests.benchmarks --rewrite --out PAGE.md

Of a page that is there, the benchmarks named replace their own groups alone; each group has the conditions of its run.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.groups import BENCHMARKS
from tests.benchmarks.harness import Bench, Figure
from tests.benchmarks.report import (
    Conditions,
    Groups,
    line_of,
    line_of_conditions,
    line_of_counts,
    read,
    record_of,
    write,
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(BENCHMARKS) + "; all by default")
    parser.add_argument("--quick", action="store_true", help="toy sizes: to see that it runs, not to be quoted")
    parser.add_argument("--strict", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--trials", type=int, default=5, help="rounds of every timed comparison")
    parser.add_argument(
        "--out", type=Path, help="page whose blocks are replaced; tables, JSON and pictures go beside it"
    )
    parser.add_argument(
        "--rewrite", action="store_true", help="measure nothing: write the pages from the JSON beside them"
    )
    parser.add_argument("--inside", nargs=2, metavar=("FOLDER", "SHARED"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(BENCHMARKS)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if given.inside:
        _measure_inside(given)
        return 0
    if given.rewrite:
        if given.names or not given.out:
            parser.error("--rewrite takes --out PAGE.md and no benchmark")
        groups, conditions = read(given.out)
        write(groups, conditions, given.out)
        return _summed_up(groups, strict=given.strict)
    return _measure_all(given)


def _measure_all(given: argparse.Namespace) -> int:
    began = time.monotonic()
    groups: Groups = {}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.names or BENCHMARKS:
            groups[BENCHMARKS[name]], code = _in_a_process(name, given, Path(folder))
            failed += [name] if code else []
    conditions = _conditions(given, (time.monotonic() - began) / 60)
    if given.out and not failed:
        write(*_merged(groups, conditions, given.out if given.names else None), given.out)
    sys.stdout.write(line_of_conditions(conditions) + "\n")
    code = _summed_up(groups, strict=given.strict)
    if failed:
        sys.stdout.write(f"{', '.join(failed)} failed, see the messages above; no page was written\n")
    return 1 if failed else code


def _summed_up(groups: Groups, *, strict: bool) -> int:
    """Say how many targets are met, open and missed; the exit code."""
    sys.stdout.write(f"{line_of_counts(groups)}\n")
    missed = any(figure.verdict == "missed" for figures in groups.values() for figure in figures)
    return 1 if missed and strict else 0


def _merged(groups: Groups, run: Conditions, page: Path | None) -> tuple[Groups, dict[str, Conditions]]:
    """The groups of a run among those of a page, as BENCHMARKS has them, each with the conditions of its own run."""
    conditions = dict.fromkeys(groups, run)
    if page is not None and record_of(page).exists():
        stored, runs = read(page)
        groups, conditions = {**stored, **groups}, {**runs, **conditions}
    headings = [heading for heading in BENCHMARKS.values() if heading in groups]
    return {heading: groups[heading] for heading in headings}, {heading: conditions[heading] for heading in headings}


def _in_a_process(name: str, given: argparse.Namespace, folder: Path) -> tuple[list[Figure], int]:
    """Figures and exit code. Peak memory, threads and caches of one benchmark do not reach the next."""
    scratch, shared = folder / name, folder / "shared"
    scratch.mkdir()
    shared.mkdir(exist_ok=True)
    line = [sys.executable, "-m", "tests.benchmarks", name, "--inside", str(scratch), str(shared)]
    line += ["--trials", str(given.trials)] + (["--quick"] if given.quick else [])
    figures = []
    began = time.monotonic()
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            figures.append(Figure.model_validate(json.loads(text)))
            sys.stdout.write(line_of(figures[-1]) + "\n")
            sys.stdout.flush()
    sys.stdout.write(f"         {name}: {time.monotonic() - began:.0f} s\n")
    return figures, process.returncode


def _measure_inside(given: argparse.Namespace) -> None:
    scratch, shared = map(Path, given.inside)
    bench = Bench(scratch=scratch, shared=shared, quick=given.quick, trials=given.trials)
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes where messages go
    for figure in importlib.import_module(f"tests.benchmarks.{given.names[0]}").measure(bench):
        results.write(json.dumps(figure.model_dump(), allow_nan=False) + "\n")
        results.flush()


def _conditions(given: argparse.Namespace, minutes: float) -> Conditions:
    from kdcache.views.provenance import provenance

    words = [*given.names, *(["--quick"] if given.quick else []), f"--trials {given.trials}"]
    found = provenance("cpu")
    return {
        "device": f"{os.cpu_count()} shared CPU cores ({_processor()}, {found.cpu_capability}), no GPU",
        "versions": found.versions,
        "command": " ".join(["python -m tests.benchmarks", *words, *([f"--out {given.out}"] if given.out else [])]),
        "minutes": minutes,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    raise SystemExit(main())
