"""A paired study in numbers, in Markdown and in one picture."""

import json
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tests.benchmarks.canvas import canvas, save

PAIRS = (
    ("cached_topk", "live"),
    ("cached_full", "live"),
    ("cached_topk", "alone"),
    ("cached_full", "alone"),
    ("live", "alone"),
)


def summarise(runs: list[dict[str, Any]], arms: tuple[str, ...], *, margin: float) -> dict[str, Any]:
    """Mean and sd of each arm, paired differences with their 95 % intervals, and the verdicts. All in points (%)."""
    points = {arm: [100.0 * run["arms"][arm]["accuracy"] for run in runs] for arm in arms}
    agreement = {arm: [100.0 * run["arms"][arm]["agreement"] for run in runs] for arm in arms}
    paired = {f"{one}-{other}": difference(points[one], points[other]) for one, other in PAIRS}
    verdicts = {}
    for arm in ("cached_topk", "cached_full"):
        apart, gain = paired[f"{arm}-live"], paired[f"{arm}-alone"]
        verdicts[f"{arm} inside +-{margin:g} points of live"] = -margin < apart["low"] and apart["high"] < margin
        verdicts[f"{arm} beats alone"] = gain["low"] > 0
    return {
        "arms": {arm: {"accuracy": spread(points[arm]), "agreement": spread(agreement[arm])} for arm in arms},
        "differences": paired,
        "verdicts": verdicts,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    return {"mean": fmean(values), "sd": stdev(values), "n": len(values)}


def difference(ones: list[float], others: list[float]) -> dict[str, float]:
    """Mean of the paired differences and its 95 % interval by Student's t with n - 1 degrees of freedom."""
    from scipy.stats import t

    found = spread([one - other for one, other in zip(ones, others, strict=True)])
    half = float(t.ppf(0.975, found["n"] - 1)) * found["sd"] / sqrt(found["n"])
    return {**found, "low": found["mean"] - half, "high": found["mean"] + half}


def write_json(study: dict[str, Any], path: Path) -> None:
    """Indented JSON with a newline at its end."""
    path.write_text(json.dumps(study, indent=1, allow_nan=False) + "\n")


def markdown(study: dict[str, Any]) -> str:
    """The result as a reader wants it: arms, differences, verdicts, conditions."""
    protocol, n = study["protocol"], len(study["seeds"])
    lines = ["| arm | test accuracy, % | agreement with the teacher, % | s an epoch | ratio |", "|---|---|---|---|---|"]
    for arm, found in study["arms"].items():
        accuracy, agreement = (
            f"{found[key]['mean']:.2f} ± {found[key]['sd']:.2f}" for key in ("accuracy", "agreement")
        )
        seconds, ratio = study["epoch_seconds"][arm]["median"], study["epoch_ratio_to_alone"][arm]
        lines.append(f"| {arm} | {accuracy} | {agreement} | {seconds:.2f} | {ratio:.2f} |")
    lines += ["", "| paired difference | mean, points | 95 % interval | sd |", "|---|---|---|---|"]
    for name, found in study["differences"].items():
        interval = f"{found['low']:+.2f} to {found['high']:+.2f}"
        lines.append(f"| {name.replace('-', ' - ')} | {found['mean']:+.2f} | {interval} | {found['sd']:.2f} |")
    lines += ["", *(f"- {what}: {'yes' if holds else 'no'}" for what, holds in study["verdicts"].items())]
    sizes, versions = study["parameters"], ", ".join(f"{name} {each}" for name, each in study["versions"].items())
    lines += [
        "",
        f"Teacher {100 * study['teacher']['accuracy']:.2f} % ({sizes['teacher']:,} parameters), students "
        f"{sizes['student']:,} parameters; n = {n} seeds, {protocol['rows']:,} rows, {protocol['epochs']} epochs over "
        f"{protocol['views']} views, {study['test_rows']:,} test images; seconds: median of {protocol['trials']} "
        f"alternating epochs. Device: {study['device']}; {versions}.",
        "",
        f"    {study['command']}",
    ]
    return "\n".join(lines)


def plot(study: dict[str, Any], path: Path) -> None:
    """Accuracy of the four students of each seed, joined; and the paired differences with their intervals."""
    figure = canvas(6.6)
    above, below = figure.subplots(2, 1)
    arms = list(study["arms"])
    for run in study["seeds"]:
        values = [100 * run["arms"][arm]["accuracy"] for arm in arms]
        above.plot(range(len(arms)), values, "o-", alpha=0.6, lw=0.8, ms=4)
    above.set_xticks(range(len(arms)), [arm.replace("_", "\n") for arm in arms])
    above.set_ylabel("test accuracy, %")
    above.set_title(f"four students of each of {len(study['seeds'])} seeds, joined", fontsize=10)
    margin = study["protocol"]["margin"]
    below.axvspan(-margin, margin, color="0.9", label=f"±{margin:g} points")
    below.axvline(0, color="0.5", lw=0.8)
    for row, (one, other) in enumerate(reversed(PAIRS)):
        apart = study["differences"][f"{one}-{other}"]
        each = [100 * (run["arms"][one]["accuracy"] - run["arms"][other]["accuracy"]) for run in study["seeds"]]
        below.plot(each, [row] * len(each), "o", color="tab:blue", alpha=0.35, ms=4)
        below.errorbar(apart["mean"], row, xerr=(apart["high"] - apart["low"]) / 2, fmt="D", color="k", ms=4, capsize=4)
    below.set_yticks(range(len(PAIRS)), [f"{one}\n- {other}".replace("_", " ") for one, other in reversed(PAIRS)])
    below.set_xlabel("paired difference, points (bar: 95 % interval)")
    below.legend(fontsize=9, loc="upper right")
    save(figure, path)
