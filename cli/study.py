"""`kdcache study` asks a published system's question again, from stores."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcache.cli.console import print_json, print_line, print_note, print_record, print_table, stopping
from kdcache.cli.flags import with_flags
from kdcache.cli.progress import progress_bar
from kdcache.pipelines.settings import load_settings
from kdcache.pipelines.studies.settings import StudySettings

if TYPE_CHECKING:
    from kdcache.pipelines.studies.outcome import Outcome

EXAMPLES = (
    "kdcache study",
    "kdcache study cho --seeds 5",
    "kdcache study cho --commands",
)


@with_flags(StudySettings, "study")
def command(flags: dict[str, Any], config: str | None, as_json: bool) -> None:
    settings = load_settings(StudySettings, flags, config)
    from kdcache.pipelines.studies.stage import commands_of, list_studies, run_study

    if settings.page:
        from kdcache.pipelines.studies.page import write_pages

        pages = write_pages(Path(settings.folder), Path(settings.page))
        print_record({"page": settings.page, "pages": len(pages)}, as_json=as_json)
        return
    if not settings.study:
        _print_list(list_studies(Path(settings.folder)), as_json)
        return
    if settings.commands:
        lines = commands_of(settings)
        if as_json:
            print_json({"commands": lines})
        for line in () if as_json else lines:
            print_line(line)
        return
    with stopping(as_json) as stop, progress_bar(quiet=as_json) as progress:
        outcome = run_study(settings, progress=progress, stop=stop)
        picture = Path(settings.folder) / f"{outcome.study}.png"
        if settings.plot:
            from kdcache.pipelines.studies.figure import draw

            draw(outcome, picture)
    if as_json:
        print_json({**outcome.model_dump(mode="json"), "verdict": outcome.verdict})
        return
    _print(outcome, str(picture) if settings.plot else "")


def _print_list(studies: list[Any], as_json: bool) -> None:
    if as_json:
        print_json({"studies": [vars(study) for study in studies]})
        return
    rows = [[s.name, s.row, s.paper, s.question, f"{s.minutes:g}", s.verdict or "-"] for s in studies]
    print_table(["study", "row", "paper", "claim", "minutes", "last verdict here"], rows)
    print_line("run one: kdcache study NAME")


def _print(outcome: "Outcome", picture: str) -> None:
    import numpy as np

    from kdcache.pipelines.studies.claims import SHARES
    from kdcache.pipelines.studies.published import interval_text

    names = list(dict.fromkeys(name for measures in outcome.arms.values() for name in measures))
    factor = {name: 100.0 if name in SHARES else 1.0 for name in names}
    base = outcome.arms[outcome.baseline]
    rows = []
    for arm, measures in outcome.arms.items():
        cells = [f"{factor[n] * np.mean(measures[n]):.4g}" if n in measures else "-" for n in names]
        is_compared = arm != outcome.baseline and outcome.measure in measures
        paired = np.subtract(measures[outcome.measure], base[outcome.measure]) if is_compared else np.zeros(1)
        rows.append([arm, *cells, f"{factor[outcome.measure] * paired.mean():+.2f}" if is_compared else "-"])
    heads = [f"{name.replace('_', ' ')}{' %' if name in SHARES else ''}" for name in names]
    print_line(f"{outcome.study}: {outcome.title}, {outcome.paper}")
    print_table(["arm", *heads, f"less {outcome.baseline}"], rows, title=f"{outcome.data}, n {len(outcome.seeds)}")
    for number, claim in enumerate(outcome.claims, 1):
        paper = f"; the paper: {claim.paper}" if claim.paper else ""
        holm = f" ({claim.holm} with all claims in view)" if claim.holm != claim.verdict else ""
        print_line(f"{number} {claim.text}: {interval_text(claim)}{paper}: {claim.verdict}{holm}")
    for difference in outcome.differences:
        print_note(f"not as in the paper: {difference}")
    for note in outcome.notes:
        print_note(note)
    print_record(
        {
            "verdict": outcome.verdict,
            "seeds": f"{outcome.seeds[0]} to {outcome.seeds[-1]}",
            "seconds": round(outcome.seconds, 1),
            "CPU seconds": round(outcome.cpu_seconds, 1),
            "pieces": f"{outcome.made} made, {outcome.present} were there",
            "rows asked of teachers": outcome.rows_asked,
            **({"picture": picture} if picture else {}),
        },
        as_json=False,
    )
