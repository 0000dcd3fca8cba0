"""`kdcache verify` checks a store."""

from typing import Any

from kdcache.cli.console import print_json, print_line, print_table
from kdcache.cli.flags import with_flags
from kdcache.cli.progress import progress_bar
from kdcache.errors import CheckFailedError
from kdcache.pipelines.settings import load_settings
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify

EXAMPLES = (
    "kdcache verify digits.kd",
    "kdcache verify digits.kd --data digits --teacher run:runs/teacher",
    "kdcache verify digits.kd --repair",
)


@with_flags(VerifySettings, "store")
def command(flags: dict[str, Any], config: str | None, as_json: bool) -> None:
    settings = load_settings(VerifySettings, flags, config)
    with progress_bar(quiet=as_json) as progress:
        verdict = verify(settings, progress=progress)
    if as_json:
        print_json(verdict.model_dump())
    else:
        rows = [[check.name, "ok" if check.passed else "FAILED", check.detail] for check in verdict.checks]
        print_table(["check", "verdict", "seen"], rows, title=f"verify {verdict.store}")
        for line in (*verdict.findings, *(f"note: {note}" for note in verdict.notes)):
            print_line(line)
        if verdict.whole:
            print_line("verdict: whole")
    if not verdict.whole:
        names = ", ".join(check.name for check in verdict.checks if not check.passed)
        raise CheckFailedError(
            f"{verdict.store} is not whole: {names}" + (f"; next: {verdict.repair}" * bool(verdict.repair))
        )
