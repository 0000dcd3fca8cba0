"""`kdcache calibrate` fits a temperature to a held-out store."""

from pathlib import Path
from typing import Annotated

import typer

from kdcache.base.figures import check_picture
from kdcache.cli.flags import Json, Verbose
from kdcache.cli.progress import progress_bar
from kdcache.cli.summary import print_summary
from kdcache.store.store import Store
from kdcache.whole_store.calibrate import Calibration, fit_temperature
from kdcache.whole_store.calibrate_plot import plot_calibration

EXAMPLES = ("kdcache calibrate held.kd --plot held.png",)

View = Annotated[int | None, typer.Option("--view", metavar="N", help="Which view's rows; the first by default.")]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw NLL over T and reliability diagrams: FILE.png.")
]


def command(
    store: Annotated[str, typer.Argument(help="folder of a store of held-out rows, STORE@ID for a pinned seal")],
    view: View = None,
    plot: Plot = None,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    if plot is not None:
        check_picture(plot)
    with progress_bar(quiet=as_json) as progress:
        calibration = fit_temperature(Store.open(store), view, progress=progress)
    if plot is not None:
        plot_calibration(calibration, plot)
    print_summary("calibrated", calibration, lines=_lines(calibration), as_json=as_json, verbose=verbose)


def _lines(calibration: Calibration) -> dict[str, str]:
    unlabelled = f", {calibration.rows_without_label:,} more without a label" if calibration.rows_without_label else ""
    return {
        "store": f"{calibration.store}, view {calibration.view}, {calibration.rows:,} rows{unlabelled}",
        "temperature": f"{calibration.temperature:.4g}" + ", the end of the range" * calibration.at_bound,
        "NLL": f"{calibration.nll_before:.4g} nats at T = 1, {calibration.nll_after:.4g} after",
        "ECE": f"{100 * calibration.ece_before:.2f} % at T = 1, {100 * calibration.ece_after:.2f} % after",
        "accuracy": f"{100 * calibration.accuracy:.2f} %",
    }
