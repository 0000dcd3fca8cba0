"""The pages of all studies are written from their outcomes: an overview, the table of all claims, a page a study."""

import os
from pathlib import Path

from kdcache.base.whole_files import make_folder, write_whole
from kdcache.pipelines.studies.overview import claims_text, overview_text
from kdcache.pipelines.studies.published import Published, outcomes_in, require_publishable
from kdcache.pipelines.studies.study_page import study_text


def write_pages(folder: Path, page: Path) -> list[Path]:
    """Write the pages of the outcomes in a folder, and in the folders inside it that name further data sets: the
    overview to `page` (.md), the others to the folder beside it that has its name. Raises InvalidInputError, see
    `require_publishable`, before anything is written."""
    published = outcomes_in(folder)
    require_publishable(published, folder)
    pages = pages_of(published, folder, page)
    make_folder(page.with_suffix(""))
    for path, text in pages.items():
        write_whole(path, text.encode())
    return list(pages)


def pages_of(published: list[Published], folder: Path, page: Path) -> dict[Path, str]:
    """The text of each page by its path; the overview first. Pictures lie in `folder`."""
    inside = page.with_suffix("")
    pictures = Path(os.path.relpath(folder, inside)).as_posix()
    studies = dict.fromkeys(one.outcome.study for one in published)
    return {
        page: overview_text(published, inside.name),
        inside / "claims.md": claims_text(published, page.name),
        **{
            inside / f"{name}.md": study_text(
                [one for one in published if one.outcome.study == name], pictures, page.name
            )
            for name in studies
        },
    }
