"""The path of a weights file as users write it: `FILE`, or `FILE#KEY` for one of the state dicts that lie in it."""

from pathlib import Path

HEADER_MAX = 100_000_000  # bytes, the most that safetensors reads


def split_weights(text: str | Path) -> tuple[Path, str]:
    """The file and the key, empty without one, of `FILE` or `FILE#KEY`. A path that exists as written is a file."""
    head, mark, key = str(text).rpartition("#")
    if not mark or not head or Path(text).exists():
        return Path(text), ""
    return Path(head), key


def is_safetensors(path: Path) -> bool:
    """True for a file that is safetensors by its name or by its content."""
    return path.suffix == ".safetensors" or begins_as_safetensors(path)


def begins_as_safetensors(path: Path) -> bool:
    """True for a file that begins with a header of safetensors. Its first bytes, a length, may be those of any kind."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= min(HEADER_MAX, path.stat().st_size)
