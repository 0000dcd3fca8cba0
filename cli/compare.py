"""`kdcache compare` holds runs and stores against a teacher's stored answers on held-out rows."""

from typing import TYPE_CHECKING, Any

from kdcache.cli.console import print_json, print_note, print_record, print_table
from kdcache.cli.flags import with_flags
from kdcache.cli.progress import progress_bar
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.settings import load_settings

if TYPE_CHECKING:
    from kdcache.pipelines.compare.comparison import Comparison, Spread

EXAMPLES = (
    "kdcache compare runs/a runs/b --store held.kd \\",
    "    --data digits --data-set split=test --html report.html",
    "kdcache compare runs/sweep",
    "kdcache compare a.kd b.kd --store held.kd",
)

SHARES = ("share", "probability")
SHOWN = (
    "accuracy",
    "nll",
    "ece",
    "agreement",
    "kl_to_teacher",
    "least_kl_to_teacher",
)  # in the terminal; --json and --html have all


@with_flags(CompareSettings, "runs")
def command(flags: dict[str, Any], config: str | None, as_json: bool) -> None:
    settings = load_settings(CompareSettings, flags, config)
    from kdcache.pipelines.compare.stage import compare

    if settings.html:
        from kdcache.pipelines.compare.page import require_page, write_page

        require_page(settings.html)
    with progress_bar(quiet=as_json) as progress:
        comparison = compare(settings, progress=progress)
    if settings.html:
        write_page(comparison, settings.html)
    if as_json:
        from kdcache.pipelines.compare.record import record_of

        print_json(record_of(comparison, settings.html))
        return
    _print(comparison, settings.html)


def _print(comparison: "Comparison", page: str) -> None:
    for warning in comparison.warnings:
        print_note(f"warning: {warning}")
    names = [name for name in SHOWN if name in comparison.measures]
    names += [name for name in comparison.measures if name.startswith("fidelity_gap")]
    units = {name: _unit(comparison, name) for name in names}
    heads = [f"{name.replace('_', ' ')}{' %' if units[name] in SHARES else ''}" for name in names]
    rows = [
        [group.name, str(len(group.members)), *(_text(group.cells.get(name), units[name]) for name in names)]
        for group in comparison.groups
    ]
    count = len(comparison.teacher.decisions)
    title = f"{count:,} rows of {comparison.data}" if count else comparison.data
    print_table(["group", "runs", *heads], rows, title=title)
    others = [group for group in comparison.groups if group.differences]
    if others:
        differences = [
            [group.name, *(_text(group.differences.get(name), units[name], signed=True) for name in names)]
            for group in others
        ]
        print_table(["group", *heads], differences, title=f"less {comparison.baseline}")
    over = {
        "seeds": "95 % intervals over runs, of differences paired by seed",
        "rows": "95 % intervals over rows (jackknife): one run each says nothing of other seeds",
        "none": "no intervals",
    }
    unpaired = [group.name for group in others if not group.is_paired and len(group.members) > 1]
    notes = [over[comparison.intervals], *comparison.notes]
    notes += [f"{name}: not paired with the baseline by seed" for name in unpaired]
    print_record(
        {
            **({"teacher": comparison.teacher_name} if comparison.teacher_name else {}),
            **{f"teacher's {name}": value.value for name, value in comparison.teacher_measures.items()},
            "baseline": comparison.baseline,
            "notes": tuple(notes),
            **({"report": page} if page else {}),
        },
        as_json=False,
    )


def _unit(comparison: "Comparison", name: str) -> str:
    return next(m.measures[name].unit for group in comparison.groups for m in group.members if name in m.measures)


def _text(cell: "Spread | None", unit: str, *, signed: bool = False) -> str:
    """Shares in percent, and the interval: its half width where the mean is its middle."""
    if cell is None:
        return "-"
    factor, digits = (100.0, 2) if unit in SHARES else (1.0, 4)
    text = f"{factor * cell.mean:{'+' if signed else ''}.{digits}f}"
    if cell.low is None or cell.high is None:
        return text
    low, high = factor * cell.low, factor * cell.high
    if abs((low + high) / 2 - factor * cell.mean) < 10**-digits / 2:
        return f"{text} ± {(high - low) / 2:.{digits}f}"
    return f"{text} ({low:.{digits}f} to {high:.{digits}f})"
