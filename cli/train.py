"""`kdcache train` trains a student."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdcache.base.launch import launched
from kdcache.base.units import seconds_text
from kdcache.cli.console import print_first_note, print_note, stopping
from kdcache.cli.flags import Verbose, with_flags
from kdcache.cli.progress import progress_bar
from kdcache.cli.summary import measures_text, print_summary
from kdcache.pipelines.settings import TrainSettings, load_settings

if TYPE_CHECKING:
    from kdcache.pipelines.train.summary import TrainSummary

EXAMPLES = (
    "kdcache train runs/teacher --student kdcache.networks:convnet --data digits",
    "kdcache train runs/student --student kdcache.networks:convnet \\",
    "    --data digits --store digits.kd --set w_ce=0.1 --temperature 4",
    "kdcache train runs/resnet --student torchvision:resnet18 \\",
    "    --data folder:/data --data-set split=train --val-set split=val \\",
    "    --store imagenet.kd --epochs 100 --optimizer adamw --lr 1e-3",
)

OldCE = Annotated[str | None, typer.Option("--w-ce", hidden=True)]
OldKD = Annotated[str | None, typer.Option("--w-kd", hidden=True)]


@with_flags(TrainSettings, "run", w_ce=OldCE, w_kd=OldKD, verbose=Verbose)
def command(flags: dict[str, Any], config: str | None, as_json: bool, verbose: bool, **old_weights: str | None) -> None:
    given_weights = {name: value for name, value in old_weights.items() if value is not None}  # which is refused
    settings = load_settings(TrainSettings, flags | given_weights, config)
    is_first = launched().rank == 0
    print_first_note(quiet=as_json or not is_first)
    from kdcache.cli.next_commands import after_training
    from kdcache.pipelines.train.epoch_end import unannounced
    from kdcache.pipelines.train.stage import train

    announce = unannounced if as_json else lambda end: print_note(end.text)
    with stopping(as_json) as stop, progress_bar(quiet=as_json or not is_first) as progress:
        tell = None if as_json else print_note
        summary = train(settings, progress=progress, stop=stop, announce=announce, tell=tell)
    if is_first:
        print_summary(
            "trained" if summary.steps > summary.steps_before else "was done before: nothing was trained",
            summary,
            lines=_lines(summary),
            next_commands=() if as_json else after_training(settings),
            as_json=as_json,
            verbose=verbose,
        )


def _lines(summary: "TrainSummary") -> dict[str, str]:
    before = f", {summary.steps_before:,} of them before" if 0 < summary.steps_before < summary.steps else ""
    lines = {
        "run": f"{summary.run}, {summary.epochs:,} epochs, {summary.steps:,} steps{before}",
        "loss": f"{summary.loss:.4g}",
        "validation": measures_text(summary.validation, summary.best_accuracy),
        "time": seconds_text(summary.seconds) + (" before" if summary.steps == summary.steps_before else ""),
        "weights": summary.weights,
    }
    if summary.selected:  # by epoch in metrics.jsonl
        shares = {name: sum(epochs) / max(len(epochs), 1) for name, epochs in summary.selected.items()}
        lines["selected"] = ", ".join(f"{name} in {100 * share:.0f} % of steps" for name, share in shares.items())
    if summary.served is not None:
        lines["from the cache"] = f"{100 * summary.served:.1f} % of views"
    if summary.drift_levels is not None:
        lines["drift"] = f"up to {summary.drift_levels:.1f} of 255 levels"
    return lines
