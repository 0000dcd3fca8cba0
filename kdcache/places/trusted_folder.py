"""Folders are trusted by their owner: one that another user owns, or may write to, is neither read nor written.

Owner and mode are those of the open folder or file, so nothing can be exchanged between a look and its use. Whoever may
rename a folder can only put one of his own in its place, which is refused: the folders above need no look.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from kdcache.errors import InvalidInputError

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
ROOT = 0
FULL = (errno.ENOSPC, errno.EDQUOT)
ELSEWHERE = "name a folder of your own in KDCACHE_CACHE, or set KDCACHE_CACHE_LIMIT=0 to keep nothing"


def is_trusted(status: os.stat_result) -> bool:
    """True for a file or folder of this user or of root that nobody else may write to."""
    return status.st_uid in (os.geteuid(), ROOT) and not status.st_mode & OTHERS_WRITE


def open_trusted(path: Path, parent: int | None, *, make: bool = False, advice: str = ELSEWHERE) -> int | None:
    """Descriptor of a folder, which is made for this user alone where that is asked for; None where it is missing.

    `parent`: the open folder that it lies in. Raises InvalidInputError where it is another user's, writable for others,
    a link, or cannot be opened, and OSError where a disk is full. Without a parent it is the user's own word, which may
    be a link and writable. `advice`: the next step, for messages.
    """
    try:
        if make and parent is None:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        elif make:
            _make_one(path.name, parent)
        flags = FOLDER if parent is None else FOLDER | os.O_NOFOLLOW
        descriptor = os.open(path if parent is None else path.name, flags, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in FULL:
            raise
        with suppress(OSError):  # for the message alone
            _require_trusted(os.stat(path), path, advice, is_root=parent is None)
        verb = "written" if make else "opened"
        raise InvalidInputError(f"the cache {path} cannot be {verb} ({error.strerror}); {advice}") from error
    try:
        _require_trusted(os.fstat(descriptor), path, advice, is_root=parent is None)
    except InvalidInputError:
        os.close(descriptor)
        raise
    return descriptor


def _make_one(name: str, parent: int | None) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return


def _require_trusted(status: os.stat_result, path: Path, advice: str, *, is_root: bool) -> None:
    user = _user(os.geteuid())
    if status.st_uid not in (os.geteuid(), ROOT):
        problem = f"the cache {path} belongs to {_user(status.st_uid)}, and you are {user}"
        raise InvalidInputError(f"{problem}: its owner could change what it serves; {advice}")
    if not is_root and not is_trusted(status):
        problem = f"the cache {path} of {_user(status.st_uid)} may be written by others than you, {user}"
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise InvalidInputError(f"{problem} (mode {mode}); move it away, or {advice}")


def _user(uid: int) -> str:
    """A user as a message names one."""
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
