"""The user's own code is told from libraries and from kdcache, and an exception of it is told in three lines."""

import linecache
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from kdcache.errors import KdcacheError, SampleError, UserCodeError

TEXT_LIMIT = 160  # characters of a line of code, and of an exception's message, that a message shows
_PACKAGES = {"site-packages", "dist-packages"}
_STANDARD = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))


@dataclass(frozen=True)
class Place:
    """A line of the user's code at which an exception passed: file, line number, function and the line's text."""

    file: str
    line: int
    function: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, in {self.function}" + (f": {self.text}" if self.text else "")


def place_of(error: BaseException) -> Place | None:
    """The innermost line of the user's code in an exception's traceback, or in that of its cause; None without any."""
    for link in causes_of(error):
        if (place := _syntax_place(link) or _innermost(link.__traceback__)) is not None:
            return place
    return None


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """An exception, its cause, the cause of that, and so on; each once, since one may be its own (`raise e from e`)."""
    link: BaseException | None = error
    known = set[int]()
    while link is not None and id(link) not in known:
        known.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def user_error(error: BaseException) -> UserCodeError | None:
    """The error that tells an exception of the user's code in three lines; None where no line of it was passed."""
    place = place_of(error)
    if place is None:
        return None
    told = UserCodeError("\n".join([exception_text(error), f"  {place}", f"  mend that line{_BY_TRACEBACK}"]))
    told.details = traceback_text(error)
    return told


def sample_error(error: BaseException, index: int, name: str, part: str) -> SampleError:
    """The error of a sample, by its index and id, that tells what its data set (or the `part` named) raised."""
    if isinstance(error, SampleError):
        told = SampleError(str(error), index, error.part)  # whose cause may be `error`
        told.details = error.details
        return told
    named = f"sample {index}" + (f" ({name})" if name else "")
    if isinstance(error, KdcacheError):
        text, number = str(error), f"sample {index} "
        told = SampleError(text.replace(number, f"{named} ", 1) if number in text else f"{named}: {text}", index, part)
    else:
        place = place_of(error)
        lines = [f"{named} cannot be {'read' if part == 'data set' else 'drawn'}: {exception_text(error)}"]
        lines += [f"  {place}"] if place else []
        told = SampleError("\n".join([*lines, f"  mend the {part} or that sample{_BY_TRACEBACK}"]), index, part)
    told.details = traceback_text(error)
    return told


_BY_TRACEBACK = "; --traceback shows the whole traceback"


def exception_text(error: BaseException) -> str:
    """Kind and message of an exception on one line, cut where it is long."""
    if isinstance(error, SystemExit):
        return f"the code called sys.exit({'' if error.code is None else repr(error.code)})"
    message = " ".join(str(error).split())
    message = message if len(message) <= 2 * TEXT_LIMIT else message[: 2 * TEXT_LIMIT] + "..."
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def traceback_text(error: BaseException) -> str:
    """The traceback of an exception, as Python prints it."""
    return "".join(traceback.format_exception(error))


def is_user_file(file: str, module: str = "") -> bool:
    """True for a file that is neither kdcache's, nor Python's, nor of an installed package."""
    if module.partition(".")[0] == "kdcache" or file.startswith("<"):
        return False
    path = Path(file)
    return not _PACKAGES & set(path.parts) and not any(path.is_relative_to(folder) for folder in _STANDARD if folder)


def _innermost(frames: TracebackType | None) -> Place | None:
    place = None
    for frame, line in traceback.walk_tb(frames):
        code = frame.f_code
        if is_user_file(code.co_filename, str(frame.f_globals.get("__name__", ""))):
            place = Place(
                code.co_filename, line, code.co_qualname, _shortened(linecache.getline(code.co_filename, line))
            )
    return place


def _syntax_place(error: BaseException) -> Place | None:
    """The line that Python could not compile: no frame passes through it."""
    if not isinstance(error, SyntaxError) or not error.filename or not is_user_file(error.filename):
        return None
    return Place(error.filename, error.lineno or 0, "<module>", _shortened(error.text or ""))


def _shortened(line: str) -> str:
    text = line.strip()
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "..."
