"""Files that are whole or absent: a new one replaces an older one at once."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file at once: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # half of it would fill a full disk further
        raise
