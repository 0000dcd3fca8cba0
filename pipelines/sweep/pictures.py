"""The pictures of a sweep: one for each swept setting that took several values, and accuracy against bytes."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from kdcache.pipelines.sweep.plots import Dot, plot_front, plot_setting
from kdcache.pipelines.sweep.results import Result

SEED = "seed"


def draw(results: Sequence[Result], swept: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Draw the pictures over earlier ones, and return their paths; none without matplotlib or two accuracies."""
    dots = [
        Dot(result.swept, 100 * result.accuracy, result.bytes_a_row, result.used_views)
        for result in results
        if result.status == "done" and result.accuracy is not None
    ]
    if importlib.util.find_spec("matplotlib") is None or len(dots) < 2:
        return ()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in swept:
        if name != SEED and len({repr(dot.swept.get(name)) for dot in dots}) > 1:
            path = folder / f"accuracy-{re.sub(r'[^A-Za-z0-9_]', '-', name)}.png"
            plot_setting(dots, name, path)
            paths.append(str(path))
    if len({(dot.bytes_a_row, dot.views) for dot in dots if dot.bytes_a_row is not None}) > 1:
        path = folder / "accuracy-bytes.png"
        plot_front([dot for dot in dots if dot.bytes_a_row is not None], path)
        paths.append(str(path))
    return tuple(paths)
