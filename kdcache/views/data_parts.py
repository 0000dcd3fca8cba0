"""Parts of a data set: some of its samples by index, and the file that lists samples by id, one a line."""

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError, SampleError
from kdcache.views.source_samples import decoder_of, readers_of, state_of
from kdcache.views.texts import rows_of_texts, sequence_of

SHOWN = 8  # ids that a message lists
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # how some shells begin a file that they write


class Described(Protocol):
    """A data set with ids and labels, as `Data` is."""

    def __len__(self) -> int: ...
    @property
    def samples(self) -> Any: ...
    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def labels(self) -> npt.NDArray[np.int32]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def probe(self) -> Callable[[int], bytes]: ...
    def identity(self) -> Any: ...


class Extracted(Protocol):
    """A store by what it says of its samples, as `Store` is."""

    @property
    def identity(self) -> Any: ...
    @property
    def rows(self) -> int: ...
    @property
    def order(self) -> IntArray: ...
    @property
    def labels(self) -> IntArray: ...
    @property
    def segments(self) -> Sequence[Any]: ...
    @property
    def folder(self) -> Any: ...


D = TypeVar("D", bound=Described)


@dataclass(frozen=True)
class SomeSamples:
    """The samples of another data set at `indices` [n]."""

    samples: Any
    indices: IntArray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.samples[int(self.indices[index])]
        except SampleError as error:  # by its index here
            told = SampleError(str(error), index, error.part)
            told.details = error.details
            raise told from error

    @property
    def content(self) -> Callable[[int], bytes] | None:
        """The bytes of a sample, where the other data set gives them."""
        content: Callable[[int], bytes] | None = getattr(self.samples, "content", None)
        return None if content is None else lambda index: content(int(self.indices[index]))

    @property
    def decoder(self) -> str:
        return decoder_of(self.samples)

    @property
    def readers(self) -> int:
        return readers_of(self.samples)

    @property
    def sequence(self) -> int:
        return sequence_of(self.samples)

    def state(self, indices: IntArray) -> Iterable[str] | None:
        """Texts that change with these samples, see `SourceSamples`."""
        return state_of(self.samples, self.indices[indices])


def ids_digest(ids: Iterable[str]) -> str:
    """The sha256 (hex) over ordered sample ids, as an identity has it."""
    digest = hashlib.sha256()
    for sample_id in ids:
        digest.update(sample_id.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def part_of(data: D, indices: IntArray) -> D:
    """The data set of the samples at `indices` [n], in that order; its indices count from 0."""
    rows = rows_of_texts(indices, sequence_of(data.samples))
    labels, ids = data.labels[rows], [data.ids[index] for index in indices.tolist()]
    samples = SomeSamples(data.samples, indices)
    probe = data.probe
    return replace(data, samples=samples, ids=ids, labels=labels, probe=lambda i: probe(int(indices[i])))  # type: ignore[type-var]


def listed_indices(file: str | Path, ids: Sequence[str]) -> IntArray:
    """Ascending indices of the samples whose ids a file lists, one a line; a line may be a JSON text, in quotes.

    Raises InvalidInputError for a file that cannot be read or lists none, and for an id that is unknown, or there
    twice.
    """
    path = Path(file).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"rows: {path} cannot be read ({error}); give a file with the id of a sample a line"
        ) from error
    text = data.decode("utf-16" if data[:2] in UTF_16 else "utf-8-sig", "surrogateescape")
    wanted = [_id_of(line) for line in text.split("\n") if line.strip()]
    if not wanted:
        raise InvalidInputError(
            f"rows: {path} lists no sample; write the ids of some, one a line, for example {ids[0]}"
        )
    indices_by_id: dict[str, list[int]] = {}
    for index, sample_id in enumerate(ids):
        indices_by_id.setdefault(sample_id, []).append(index)
    if unknown := [name for name in wanted if name not in indices_by_id]:
        close = difflib.get_close_matches(unknown[0], ids[:100_000], 1)
        hint = f"did you mean {close[0]}?" if close else f"ids are such as {ids[0]}"
        raise InvalidInputError(
            f"rows: {path} lists {len(unknown)} ids that the data set has not: {shown_ids(unknown)}; {hint}"
        )
    if twice := [name for name, count in Counter(wanted).items() if count > 1]:
        raise InvalidInputError(f"rows: {path} lists {len(twice)} ids twice: {shown_ids(twice)}; list each once")
    if many := [name for name in wanted if len(indices_by_id[name]) > 1]:
        raise InvalidInputError(
            f"rows: {path} lists ids that several samples of the data set have: {shown_ids(many)}; give each an id of "
            "its own"
        )
    return np.array(sorted(indices_by_id[name][0] for name in wanted), dtype=np.int64)


def write_ids(file: str | Path, ids: Iterable[str]) -> None:
    """Write a new file of ids, one a line. Raises InvalidInputError where it is there already."""
    path = Path(file).expanduser()
    data = "".join(_line_of(sample_id) + "\n" for sample_id in ids).encode("utf-8", "surrogateescape")
    try:
        with path.open("xb") as target:
            target.write(data)
    except FileExistsError as error:
        raise InvalidInputError(f"{path} is there already; name a new file, or remove it first") from error


def shown_ids(ids: Sequence[str]) -> str:
    """Ids as text, the first few of many."""
    rest = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + rest


def _id_of(line: str) -> str:
    """The id on a line. A text in quotes is JSON where it can be, else it stands for itself."""
    line = line.removesuffix("\r")
    if line.startswith('"'):
        try:
            value = json.loads(line)
        except ValueError:
            return line
        return value if isinstance(value, str) else line
    return line


def _line_of(sample_id: str) -> str:
    """The line of an id: as it is, or as JSON where that would be read otherwise."""
    plain = _id_of(sample_id) == sample_id and "\n" not in sample_id and bool(sample_id.strip())
    return sample_id if plain else json.dumps(sample_id)
