"""The errors that a user can mend, as one tree. The command line turns each into a message and an exit code.

KdcacheError                 exit 2: what is wrong, the two values, what to do next
├── InvalidInputError        a setting, a spec or a file that cannot be used as given
│   ├── SampleError          one sample cannot be read or drawn; names its index and id
│   └── UserCodeError        an exception of the user's own code; names file and line
├── MismatchError            two identities that must be equal are not; names every field that differs
├── StoreError               the store itself
│   ├── StoreNotFoundError   there is no store at this place
│   ├── FormatError          written by a newer kdcache, or not a store's metadata
│   ├── MissingBlockError    rows were asked for that no commit covers
│   ├── DamagedError         a committed file is gone, cut or altered
│   └── ClosedError          a server says that one may not have a file, or that it lacks it
├── BadLogitsError           NaN, Inf or unusable class ids; names the samples
├── BadOutputsError          features or taps that f16 does not hold; names the samples
├── ReplayError              a view that was drawn again is not the view the teacher saw
├── TeacherSuspectError      a teacher that scores near chance on its own data set
├── CannotWriteError         a run's or a sweep's file that cannot be written: a full disk, or no permission
├── ClusterError             a scheduler or a worker that cannot be used
├── BlocksFailedError        exit 1: blocks that failed again and again; names blocks and samples
├── CheckFailedError         exit 1: a check ran and its verdict is no
└── InterruptedRunError      exit 75: stopped on request; the same command goes on
"""

import difflib
import re
from collections.abc import Iterator, Sequence

DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")  # a sha256, of which a message shows the first digits
TEXT_LINES = 24  # lines of a changed text that a message shows
WINDOW = 72  # signs of a long value that a message shows, from a little before its first difference


class KdcacheError(Exception):
    """Every error that kdcache raises on purpose is a KdcacheError.

    Attributes:
        exit_code: The exit status of the command line.
        told_elsewhere: True where another process of this machine failed with it too, and says so.
        details: The traceback of the exception behind it, as text, where one may want to see it.

    Examples:
        >>> try:
        ...     Store.open("nowhere.kd")
        ... except KdcacheError as error:
        ...     print(type(error).__name__, error.exit_code)
        StoreNotFoundError 2
    """

    exit_code = 2
    told_elsewhere = False  # true where another process of this machine failed with it too, and says so
    details = ""  # the traceback of the exception behind it, as text, where one may want to see it


class InvalidInputError(KdcacheError):
    """A setting, a spec or a file cannot be used as given."""


class SampleError(InvalidInputError):
    """A sample cannot be read or drawn.

    Attributes:
        index: The sample's index in the data set.
        part: "data set" where it cannot be read, "transform" where it was read and cannot be drawn.
    """

    def __init__(self, message: str, index: int = -1, part: str = "data set") -> None:
        super().__init__(message)
        self.index, self.part = index, part

    def __reduce__(self) -> tuple[type["SampleError"], tuple[object, ...], dict[str, str]]:
        """Pickle the error as its arguments: it crosses processes too."""
        return type(self), (str(self), self.index, self.part), {"details": self.details}


class UserCodeError(InvalidInputError):
    """Your own code raised an exception; the message names its file and line."""


class MismatchError(KdcacheError):
    """Two identities that must be equal are not. The message has counts of rows first, shows sha256 sums by their first
    digits, and of long texts the part that differs.

    Args:
        headline: The first line of the message.
        differences: (field, first value, second value), each as text.
        advice: The last line of the message.
        names: The owners of the two values.
    """

    def __init__(
        self,
        headline: str,
        differences: Sequence[tuple[str, str, str]],
        advice: str,
        names: tuple[str, str] = ("the store", "this run"),
    ) -> None:
        self.differences = tuple(differences)
        self._arguments = (headline, self.differences, advice, names)
        super().__init__("\n".join([headline, *lines_of_differences(self.differences, names), advice]))

    def __reduce__(self) -> tuple[type["MismatchError"], tuple[object, ...]]:
        """Pickle the error as its arguments: it crosses processes too."""
        return type(self), self._arguments


def lines_of_differences(differences: Sequence[tuple[str, str, str]], names: tuple[str, str]) -> list[str]:
    """Differences for people, counts of rows first. The arguments are those of `MismatchError`."""
    counts_first = sorted(differences, key=lambda entry: entry[0].rpartition(".")[2] != "rows")
    return [line for entry in counts_first for line in difference_lines(*entry, names)]


def difference_lines(field: str, left: str, right: str, names: tuple[str, str]) -> Iterator[str]:
    """A difference for people: on one line, or as the changed lines of two texts."""
    if "\n" not in left + right:
        one, other = (DIGEST.sub(r"\1...", value) for value in _around_difference(left, right))
        yield f"  {field}: {names[0]} has {one}, {names[1]} has {other}"
        return
    diff = list(difflib.unified_diff(left.splitlines(), right.splitlines(), n=0, lineterm=""))
    changed = [line for line in diff[2:] if not line.startswith("@@")]  # behind the names of the two
    yield f"  {field}: {names[0]} has the lines with -, {names[1]} those with +"
    for line in changed[:TEXT_LINES]:
        yield "    " + DIGEST.sub(r"\1...", f"{line[0]} {line[1:]}")
    if len(changed) > TEXT_LINES:
        yield f"    and {len(changed) - TEXT_LINES} more lines"


def _around_difference(left: str, right: str) -> tuple[str, str]:
    """Two values as they are, or of long ones the part in which they begin to differ."""
    if max(len(left), len(right)) <= 2 * WINDOW:
        return left, right
    same = next(
        (place for place, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(min(left, right, key=len))
    )
    start = max(same - WINDOW // 2, 0)

    def part(value: str) -> str:
        return ("..." if start else "") + value[start : start + WINDOW] + ("..." if start + WINDOW < len(value) else "")

    return part(left), part(right)


class StoreError(KdcacheError):
    """A store cannot be used; the classes below tell why."""


class StoreNotFoundError(StoreError):
    """A place holds no store."""


class FormatError(StoreError):
    """The metadata of a store are of a newer format, or not as this format writes them."""


class MissingBlockError(StoreError):
    """Rows were asked for that no commit covers."""


class DamagedError(StoreError):
    """A committed file is gone, cut or altered."""


class ClosedError(StoreError):
    """A server refuses a file; some servers answer the same for a file that they lack."""


class BadLogitsError(KdcacheError):
    """A teacher's answer cannot be stored: NaN, Inf, or class ids that do not fit. The message names the samples."""


class BadOutputsError(KdcacheError):
    """An output of a teacher's layer cannot be stored in f16: NaN, Inf, or too large a number."""


class ReplayError(KdcacheError):
    """A view that was drawn again is not the view the teacher saw."""


class TeacherSuspectError(KdcacheError):
    """A teacher's top-1 accuracy on its own data set is near chance: most likely it is fed wrongly."""


class CannotWriteError(KdcacheError):
    """A file of a run or a sweep cannot be written: the disk is full, or it may not be written. Earlier files are
    whole, and the same command goes on.
    """


class ClusterError(KdcacheError):
    """A scheduler or a worker cannot be used: not reached, lost, of another version, or without the data."""


class BlocksFailedError(KdcacheError):
    """Some blocks failed again and again; the others are committed, and nothing is sealed."""

    exit_code = 1


class CheckFailedError(KdcacheError):
    """A check ran to its end and its verdict is no."""

    exit_code = 1


class InterruptedRunError(KdcacheError):
    """A run was stopped on request; committed work stays, and the same command goes on from there."""

    exit_code = 75
