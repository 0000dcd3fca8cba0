"""Every picture of docs/figures whose JSON is there, drawn again; nothing is measured.

    python -m tests.benchmarks.pictures [--folder docs/figures]

The pictures of the studies are drawn too, from the JSONs of their outcomes. compare.png is a screenshot of a report.
"""

import argparse
import json
from pathlib import Path

from kdcache.pipelines.studies.figure import draw
from kdcache.pipelines.studies.outcome import Outcome
from tests.benchmarks import paired_report, report, sizes_picture, sweeps_picture, tails, targets_picture, two_results
from tests.benchmarks.answers import Results


def redraw(folder: Path) -> None:
    """Draw all pictures of a folder of JSONs."""
    groups, _ = report.read(folder.parent / "performance.md")
    targets_picture.plot(groups, folder / "performance.png")
    sizes_picture.plot([figure for figures in groups.values() for figure in figures], folder / "bytes_a_row.png")
    live = json.loads((folder / "live_vs_cached.json").read_text())
    paired_report.plot(live, folder / "live_vs_cached.png")
    two_results.plot(live, Results(groups, folder), folder / "two_results.png")
    sweeps_picture.plot(json.loads((folder / "sweep_total_time.json").read_text()), folder / "sweep_total_time.png")
    tails.draw(json.loads((folder / "tails.json").read_text()), folder / "tails.png")
    for path in sorted((folder / "studies").rglob("*.json")):
        draw(Outcome.model_validate_json(path.read_text()), path.with_suffix(".png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("docs/figures"))
    redraw(parser.parse_args().folder)


if __name__ == "__main__":
    main()
