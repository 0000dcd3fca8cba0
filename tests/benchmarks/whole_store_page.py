"""The page of whole-store commands on one worker and on two, from whole_store.json."""

from typing import Any

from tests.benchmarks.blocks import table

HEAD = """# Whole-store commands

<!-- made by make bench -->

Commands that look at every block of a store, on a Dask cluster of one worker process and on one of two, in turns;
starting the cluster is not timed. Rows are generated: top 20 of 1,000 classes, 10 views. "Times as fast" is above 1
where two workers are faster; where its interval holds 1, the machine was too busy to tell."""


def whole_store_page(record: dict[str, Any]) -> str:
    """The table, and the conditions of the run."""
    rows = []
    for line in record["results"]:
        store = f"{line['gigabytes']:.2f} GB, {line['rows']:,} rows, {line['blocks']} blocks"
        seconds = [f"{line['seconds'][workers]:.1f}" for workers in ("1 worker", "2 workers")]
        ratio, low, high = line["ratio"]
        rows.append(
            [f"`{line['command']}`", store, *seconds, f"{ratio:.2f} ({low:.2f} to {high:.2f})", str(line["trials"])]
        )
    columns = ("command", "store", "1 worker, s", "2 workers, s", "times as fast (95 %)", "rounds")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    run = f"{record['device']}; {versions}. By `{record['command']}`."
    return f"{HEAD}\n\n{table(columns, rows)}\n\n{run}\n"
