"""Labelled rows: whoever reads a row of a data set object has its label compared with the one that is known for it.

A data set that gives another sample in place of one that it cannot read would bring a picture beside a label that is
not its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

from kdcache.errors import SampleError
from kdcache.views.label_numbers import NONE, Labels, class_number, label_attribute, shown_label


class LabelledRows:
    """The rows (image, label) of a data set object with known `labels` [N] and `ids`. Raises SampleError for a row
    whose label is another; a row that is (image,) alone has none."""

    def __init__(self, samples: Any, labels: Labels, ids: Sequence[str]) -> None:
        self.samples, self.labels, self.ids = samples, labels, ids

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        row = self.samples[index]
        try:
            label = row[1]
        except IndexError:
            return row
        expected = int(self.labels[index])
        if label.__class__ is int and label == expected:
            return row
        try:
            differs = class_number(label) != expected
        except ValueError:
            differs = True
        if differs:
            raise SampleError(self._problem(index, label, expected), index)
        return row

    @property
    def content(self) -> Callable[[int], bytes] | None:
        """The bytes of a sample, where the data set gives them."""
        content: Callable[[int], bytes] | None = getattr(self.samples, "content", None)
        return content

    def _problem(self, index: int, label: Any, expected: int) -> str:
        attribute = label_attribute(self.samples, len(self.labels))
        place = "when labels were read" if attribute is None else f"in the attribute `{attribute[0]}`"
        return (
            f"sample {index} ({self.ids[index]}) has label {shown_label(label)} in its row and "
            f"{'none' if expected == NONE else expected} {place}: does the data set give another sample where one "
            "cannot be read? Let it raise an error there. Else let both give one label, or use the soft labels alone "
            "(--labels none)"
        )
