"""Labels of a user's data set, as class numbers: from its attribute, held against some rows, or by one pass over it.

A label is right or it is refused by its sample: a whole number of any form, -1 or None for none.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from torch import Tensor

from kdcache.base.progress import Activity, Progress, silent
from kdcache.base.user_code import sample_error
from kdcache.errors import InvalidInputError, SampleError
from kdcache.views.draw import own_generators
from kdcache.views.label_numbers import LARGEST, NONE, Labels, class_number, label_attribute, listed, shown_label

CHECKED = 8  # rows that are held against the label attribute, evenly spaced
PATIENCE = 2.0  # seconds of reading after which progress is reported
NO_ROWS = (str, bytes, Tensor, PIL.Image.Image)


class OwnLabels:
    """The labels of a data set object, whose samples are known by `ids` [N]. `name` is the data set's, for errors."""

    def __init__(self, samples: Any, ids: Sequence[str], name: str, progress: Progress = silent) -> None:
        self.samples, self.ids, self.name, self.progress = samples, ids, name, progress

    def read(self, class_names: Sequence[str]) -> Labels:
        """Labels [N] i32, -1 for none. Raises InvalidInputError, naming the sample and its label."""
        attribute = label_attribute(self.samples, len(self.ids))
        if attribute is None:
            labels = self._numbers(list(self._labels_of_rows()))
        else:
            labels = self._numbers(attribute[1])
            self._compare(labels, attribute[0])
        largest = int(labels.max(initial=NONE))
        if class_names and largest >= len(class_names):
            index, count = int(labels.argmax()), len(class_names)
            raise self._error(
                index, largest, f"the data set names {count} classes, 0 to {count - 1}: labels count from 0"
            )
        return labels

    def require_rows(self) -> None:
        """Raises InvalidInputError for rows that are no (image, label), judged by some of them."""
        for _ in self._readable_rows():
            pass

    def _compare(self, labels: Labels, attribute: str) -> None:
        """Raises InvalidInputError where a row has another label than the attribute."""
        for index, row in self._readable_rows():
            try:
                label = row[1]
            except IndexError:  # (image,) alone
                continue
            try:
                differs = class_number(label) != labels[index]
            except ValueError:
                differs = True
            if differs:
                raise InvalidInputError(
                    f"data {self.name}: {self._sample(index)} has label {shown_label(label)} in data[{index}][1] and "
                    f"{labels[index]} in its attribute `{attribute}`, perhaps by a target_transform; give it an "
                    "attribute `labels` of the labels that data[i][1] gives"
                )

    def _readable_rows(self) -> Iterator[tuple[int, Any]]:
        """Some rows, with their indices. One that cannot be read is left to those who draw it, unless none can."""
        errors, count = [], 0
        for index in np.unique(np.linspace(0, len(self.ids) - 1, min(CHECKED, len(self.ids))).astype(int)).tolist():
            try:
                row = next(self._rows(np.array([index])))
            except InvalidInputError:
                raise
            except Exception as error:  # noqa: BLE001  the data set is its user's code
                errors.append(error)
                continue
            count += 1
            yield index, row
        if errors and not count:
            raise errors[0]

    def _labels_of_rows(self) -> Iterator[Any]:
        """The label of each row. Raises SampleError for a row that cannot be read, which has no label either."""
        rows = self._rows(np.arange(len(self.ids)), progress=self.progress)
        for index in range(len(self.ids)):
            try:
                yield next(rows)[1]
            except InvalidInputError:
                raise
            except Exception as error:  # of its user's code
                problem = sample_error(error, index, self.ids[index], "data set")
                advice = "its label is read with it: give the data set an attribute `labels`, and it can be left out"
                raise SampleError(f"{problem}; {advice}", index) from error

    def _rows(self, indices: npt.NDArray[Any], progress: Progress = silent) -> Iterator[Any]:
        start_time = time.monotonic()
        with own_generators():
            for count, index in enumerate(indices.tolist(), start=1):
                row = _row(self.samples, index, self.name)
                if time.monotonic() - start_time > PATIENCE:
                    progress(Activity("reading labels", "samples"), count, len(indices))
                yield row

    def _numbers(self, labels: Any) -> Labels:
        """Labels of any form as i32. Raises InvalidInputError for another number of them than there are samples."""
        if isinstance(labels, np.ma.MaskedArray):
            labels = labels.tolist()  # None where they are masked
        labels = labels.detach().cpu() if isinstance(labels, Tensor) else labels
        try:
            count = len(labels)
        except TypeError as error:
            raise InvalidInputError(f"data {self.name}: its labels are no sequence ({error})") from error
        if count != len(self.ids):
            raise InvalidInputError(f"data {self.name} has {count} labels for {len(self.ids)} samples")
        if (fast := _of_array(labels)) is not None:
            return fast
        values = np.empty(count, dtype=np.int32)
        for index, label in enumerate(labels):
            try:
                values[index] = class_number(label)
            except ValueError as error:
                raise self._error(index, label, str(error)) from error
        return values

    def _sample(self, index: int) -> str:
        return f"sample {index} ({self.ids[index]})"

    def _error(self, index: int, label: Any, problem: str) -> InvalidInputError:
        return InvalidInputError(f"data {self.name}: {self._sample(index)} has label {shown_label(label)}: {problem}")


def _of_array(labels: Any) -> Labels | None:
    """Labels of a numeric form as i32, at once; None where they have another form, or one of them is not right."""
    try:
        values = np.asarray(labels)
    except (ValueError, TypeError, RuntimeError):
        return None
    if values.dtype.kind not in "biuf" or values.shape not in ((len(labels),), (len(labels), 1)):
        return None
    values = values.reshape(-1).astype(np.uint8) if values.dtype.kind == "b" else values.reshape(-1)
    is_right = (values >= NONE) & (values <= LARGEST) & (values == np.floor(values))
    return values.astype(np.int32) if is_right.all() else None


def _row(samples: Any, index: int, name: str) -> Any:
    """A row, (image, label) or longer. Raises InvalidInputError for one of another form."""
    try:
        row = samples[index]
    except NotImplementedError as error:
        kind = type(samples).__name__
        raise InvalidInputError(f"data {name} is a {kind} without __getitem__; it must be indexable") from error
    form = ""
    if isinstance(row, Mapping):
        form = f"a dict with {listed(list(map(str, row)))}, and others are pairs; give all rows one form"
    elif isinstance(row, NO_ROWS) or not hasattr(row, "__getitem__") or _is_numeric(row):
        form = f"a {type(row).__name__}; let __getitem__ return both, the label -1 or None where there is none"
    if form:
        raise InvalidInputError(f"data {name}: a row is (image, label); this one, data[{index}], is {form}")
    return row


def _is_numeric(row: Any) -> bool:
    return isinstance(row, np.ndarray) and row.dtype != object
