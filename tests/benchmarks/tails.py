"""What each tail costs on a real ImageNet teacher, by k and temperature: the README's table and docs/figures/tails.*.

    python -m tests.benchmarks.tails --out docs/figures --readme README.md

The figures depend on no clock: another machine gives them again up to the rounding of its convolutions.
"""

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.labels.tail_errors import TAILS, TEMPERATURES, TailError, tail_errors
from kdcache.views.provenance import provenance
from tests.kits.photographs import imagenet_logits

KS = (5, 10, 20, 50)
BEGIN, END = "<!-- tails: made by tests.benchmarks.tails -->", "<!-- end of tails -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--readme", type=Path)
    given = parser.parse_args()
    logits = imagenet_logits(given.crops)
    errors = tail_errors(logits, KS)
    record = {
        "command": f"python -m tests.benchmarks.tails --crops {given.crops}",
        "teacher": "EfficientNet-lite0, ImageNet weights",
        "rows": given.crops,
        "device": f"CPU, {platform.machine()}",
        "versions": provenance("cpu").versions,
        "kept_mass": kept_mass(logits),
        "errors": [error.model_dump() for error in errors],
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "tails.json").write_text(json.dumps(record, indent=1) + "\n")
    plot(errors, given.out / "tails.png")
    text = table(errors, record["kept_mass"])
    if given.readme is not None:
        replace_block(given.readme, text)
    sys.stdout.write(text)


def kept_mass(logits: Any) -> dict[str, dict[str, float]]:
    """Mean probability in the top k, by k and temperature."""
    found: dict[str, dict[str, float]] = {}
    ordered = np.sort(logits.astype(np.float64), axis=1)[:, ::-1]
    for temperature in TEMPERATURES:
        p = np.exp((ordered - ordered[:, :1]) / temperature)
        share = p.cumsum(axis=1) / p.sum(axis=1, keepdims=True)
        for k in KS:
            found.setdefault(str(k), {})[f"{temperature:g}"] = float(share[:, k - 1].mean())
    return found


def table(errors: list[TailError], mass: dict[str, dict[str, float]]) -> str:
    """Markdown: a line for each k and temperature, a cell for each tail."""
    lines = [f"| k | T | mass kept | {' | '.join(TAILS)} |", "|---|---|---|" + "---|" * len(TAILS)]
    for k in KS:
        for temperature in TEMPERATURES:
            cells = [e for e in errors if (e.k, e.temperature) == (k, temperature)]
            shown = " | ".join(f"{e.kl_error:.3f}, {e.angle_start:.0f}°, {e.angle_half:.0f}°" for e in cells)
            lines.append(f"| {k} | {temperature:g} | {mass[str(k)][f'{temperature:g}']:.2f} | {shown} |")
    return "\n".join(lines) + "\n"


def replace_block(path: Path, text: str) -> None:
    """Put the table between its two marks."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{path} has no marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


def plot(errors: list[TailError], path: Path) -> None:
    """KL that a reconstruction loses, and the gradient's angle half way, over k."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(TEMPERATURES), figsize=(11, 5.5), sharex=True, sharey="row")
    for column, temperature in enumerate(TEMPERATURES):
        for tail in TAILS:
            chosen = [e for e in errors if (e.temperature, e.tail) == (temperature, tail)]
            axes[0, column].plot(KS, [e.kl_error for e in chosen], marker="o", label=tail)
            axes[1, column].plot(KS, [e.angle_half for e in chosen], marker="o", label=tail)
        axes[0, column].set(title=f"T = {temperature:g}", yscale="log")
        axes[1, column].set(xlabel="k of 1000 classes", xscale="log", xticks=KS)
        axes[1, column].set_xticks(KS, [str(k) for k in KS])
        axes[1, column].minorticks_off()
    axes[0, 0].set_ylabel("error in KL, nats")
    axes[1, 0].set_ylabel("angle between gradients, degrees\n(student half way)")
    axes[1, 0].set_ylim(0, 120)
    axes[1, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
