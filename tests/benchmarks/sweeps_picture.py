"""The picture of what a sweep costs: total time over n, and side by side against one."""

from pathlib import Path
from typing import Any

from tests.benchmarks.canvas import canvas, save

WAYS = (
    ("live", "teacher in the loop", "tab:red", "s"),
    ("store", "kdcache, one by one", "tab:blue", "o"),
    ("store_together", "kdcache, together", "tab:green", "^"),
)


def plot(study: dict[str, Any], path: Path) -> None:
    """Above: total seconds for n students, hollow where summed; below: n side by side over one."""
    figure = canvas(7.0)
    above, below = figure.subplots(2, 1)
    _draw_totals(above, study)
    _draw_sides(below, study["side_by_side"])
    save(figure, path)


def _draw_totals(axes: Any, study: dict[str, Any]) -> None:
    rows = study["total_seconds"]["totals"]
    counts = [row["n"] for row in rows]
    for key, label, colour, marker in WAYS:
        axes.plot(counts, [row[key] for row in rows], "-", color=colour, label=label)
        for row in rows:
            run = row["whole"] or key == "store_together"
            axes.plot(row["n"], row[key], marker, color=colour, mfc=colour if run else "white", ms=6)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    ticks = [10, 20, 50, 100]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("students")
    axes.set_ylabel("CPU seconds, all students")
    last = rows[-1]
    times = last["live"] / last["store_together"]
    axes.set_title(f"{last['n']} students: {times:.1f} times less; hollow marks: summed", fontsize=10)
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize=9)


def _draw_sides(axes: Any, sides: dict[str, Any]) -> None:
    for number, (name, found) in enumerate(sides.items()):
        counts = [int(count) for count in found["times_one"]]
        axes.plot(counts, list(found["times_one"].values()), "o-", color=f"C{number}", label=name)
    axes.plot(counts, counts, "--", color="0.6", label="one after another")
    axes.axhline(3.0, color="0.8", lw=1)
    axes.set_xticks(counts)
    axes.set_xlabel("students side by side")
    axes.set_ylabel("time of a step, one student = 1")
    axes.set_title("students side by side on one stream", fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9)
