"""Pictures of results, drawn by matplotlib, which is imported when one is drawn."""

import io
from pathlib import Path
from typing import Any

from kdcache.base.whole_files import write_whole
from kdcache.errors import InvalidInputError

KINDS = (".png", ".pdf", ".svg")


def check_picture(path: Path) -> None:
    """Refuse, before the work is done, a plot that could not be drawn at its end. Raises InvalidInputError."""
    if path.suffix not in KINDS:
        raise InvalidInputError(f"plot {path} ends in {path.suffix or 'no suffix'!r}; it can be {', '.join(KINDS)}")
    if not path.parent.is_dir():
        raise InvalidInputError(f"plot {path}: there is no folder {path.parent}; make it first")


def figure_class() -> Any:
    """matplotlib's Figure."""
    from matplotlib.figure import Figure

    return Figure


def save_picture(figure: Any, path: Path, *, dpi: int = 120) -> None:
    """Write a figure to a file, whole or not at all. Raises InvalidInputError where it cannot be written."""
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:], dpi=dpi)
    try:
        write_whole(path, picture.getvalue())
    except OSError as error:
        advice = "free some space or mend the permissions of its folder, and run the same command again"
        raise InvalidInputError(f"plot {path} cannot be written ({error.strerror}); {advice}") from error
