"""`kdcache calibrate` fits a temperature to a held-out store."""

from pathlib import Path
from typing import Annotated

import typer

from kdcache.base.figures import check_picture
from kdcache.cli.console import print_record, progress_bar
from kdcache.cli.flags import Json
from kdcache.store.store import Store
from kdcache.whole_store.calibrate import fit_temperature
from kdcache.whole_store.calibrate_plot import plot_calibration

View = Annotated[int | None, typer.Option("--view", help="Which view's rows; the first by default.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw NLL over T and reliability diagrams: FILE.png.")]
PLOT_FIELDS = {"curve", "bins_before", "bins_after"}  # for programs and for the plot, not for people


def command(
    store: Annotated[str, typer.Argument(help="folder of a store of held-out rows, STORE@ID for a pinned seal")],
    view: View = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    if plot is not None:
        check_picture(plot)
    with progress_bar(quiet=as_json) as progress:
        calibration = fit_temperature(Store.open(store), view, progress=progress)
    if plot is not None:
        plot_calibration(calibration, plot)
    record = calibration.model_dump(exclude=None if as_json else PLOT_FIELDS)
    print_record(record, as_json=as_json, title="calibrated")
