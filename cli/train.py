"""`kdcache train` trains a student."""

from typing import Annotated, Any

import typer

from kdcache.base.launch import launched
from kdcache.cli.console import print_first_note, print_note, print_record, progress_bar, stopping
from kdcache.cli.flags import with_flags
from kdcache.pipelines.settings import TrainSettings, load_settings

OldCE = Annotated[str | None, typer.Option("--w-ce", hidden=True)]
OldKD = Annotated[str | None, typer.Option("--w-kd", hidden=True)]


@with_flags(TrainSettings, "run", w_ce=OldCE, w_kd=OldKD)
def command(flags: dict[str, Any], config: str | None, as_json: bool, **old_weights: str | None) -> None:
    given_weights = {name: value for name, value in old_weights.items() if value is not None}  # which is refused
    settings = load_settings(TrainSettings, flags | given_weights, config)
    is_first = launched().rank == 0
    print_first_note(quiet=as_json or not is_first)
    from kdcache.pipelines.train.epoch_end import unannounced
    from kdcache.pipelines.train.stage import train

    announce = unannounced if as_json else lambda end: print_note(end.text)
    with stopping(as_json) as stop, progress_bar(quiet=as_json or not is_first) as progress:
        tell = None if as_json else print_note
        summary = train(settings, progress=progress, stop=stop, announce=announce, tell=tell)
    if is_first:
        record = summary.model_dump()
        if "selected" in record and not as_json:  # by epoch in metrics.jsonl
            record["selected"] = {name: round(sum(e) / max(len(e), 1), 3) for name, e in summary.selected.items()}
        print_record(record, as_json=as_json, title="trained")
