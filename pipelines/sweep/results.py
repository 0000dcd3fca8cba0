"""The results of a sweep: a line a point, as results.csv and as plain data."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from kdcache.base.records import Record
from kdcache.base.whole_files import write_whole
from kdcache.pipelines.sweep.space import Point
from kdcache.training.run_folder import read_metrics

Status = Literal["waiting", "running", "done", "failed", "stopped"]
MEASURES = ("accuracy", "best_accuracy", "loss", "nll", "ece", "agreement", "kl_to_teacher", "perplexity")


class Result(Record):
    """The result of one point: its swept settings, and the measures of its last whole epoch (`best_accuracy`: of the
    best one). `seconds` are those of its epochs, which students of one stream share. `bytes_a_row` is summed over its
    stores, at its k' and tail. `used_views` is the count of the stores' views that it uses."""

    point: str
    status: Status
    swept: dict[str, Any]
    epochs: int = 0
    accuracy: float | None = None
    best_accuracy: float | None = None
    loss: float | None = None
    nll: float | None = None
    ece: float | None = None
    agreement: float | None = None
    kl_to_teacher: float | None = None
    perplexity: float | None = None
    seconds: float = 0.0
    bytes_a_row: float | None = None
    used_views: int | None = None
    error: str | None = None


def result_of(
    point: Point, status: Status, *, bytes_a_row: float | None, used_views: int | None, error: str | None = None
) -> Result:
    """The result of a point, its measures read from its run's folder."""
    lines = read_metrics(Path(point.settings.run))
    last_line = lines[-1] if lines else {}
    best = max((line["accuracy"] for line in lines if "accuracy" in line), default=None)
    return Result(
        point=point.name,
        status=status,
        swept=point.swept,
        epochs=len(lines),
        best_accuracy=best,
        seconds=sum(line["seconds"] for line in lines),
        bytes_a_row=bytes_a_row,
        used_views=used_views,
        error=error,
        **{name: last_line.get(name) for name in MEASURES if name != "best_accuracy"},
    )


def write_results(path: Path, results: Sequence[Result], swept: Sequence[str]) -> None:
    """Replace results.csv in one move: one line a point, a column for each swept setting."""
    columns = [name for name in Result.model_fields if name not in ("point", "status", "swept", "perplexity")]
    if any(result.perplexity is not None for result in results):  # of texts
        columns.insert(columns.index("kl_to_teacher") + 1, "perplexity")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["point", "status", *swept, *columns])
    for result in results:
        swept_values = [result.swept.get(name) for name in swept]
        writer.writerow(
            [result.point, result.status, *swept_values, *(_cell(getattr(result, name)) for name in columns)]
        )
    write_whole(path, text.getvalue().encode())


def _cell(value: Any) -> Any:
    """A cell of the table; floats have six digits, since more is noise of f32."""
    return f"{value:.6g}" if isinstance(value, float) else value
