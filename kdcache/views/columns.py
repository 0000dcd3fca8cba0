"""Columns of a table of samples: which holds the images, which the labels and the ids. Several are named."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdcache.errors import InvalidInputError
from kdcache.views.label_numbers import listed


@dataclass(frozen=True)
class Noun:
    """A table as messages name it: the `text` that begins them, and the `way` to choose a column, as a format of the
    argument that names it and of a column."""

    text: str
    way: str


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they hold: `kinds` is a text for each, such as `Image`. `flag`: the argument that
    names the column of images."""

    kinds: Mapping[str, str]
    noun: Noun
    flag: str = "image"

    def images(self, name: str, is_image: Callable[[str], bool]) -> str:
        """The column of encoded images: the one that the user names, or the only one that holds some. Raises
        InvalidInputError, which lists the columns."""
        return self._chosen(name, self.flag, "encoded images", is_image)

    def labels(self, name: str, is_label: Callable[[str], bool]) -> str:
        """The column of labels: the one that the user names, or the only one of classes."""
        if name:
            return self.named(name, "label")
        return self._chosen("", "label", "classes", is_label, ", or --labels none uses no label")

    def named(self, name: str, argument: str) -> str:
        """A column that the user names. Raises InvalidInputError where there is none of that name."""
        if name not in self.kinds:
            raise InvalidInputError(f"{self.noun.text} has no column {name!r}, which {argument}= names; {self._all()}")
        return name

    def _chosen(self, name: str, argument: str, content: str, fits: Callable[[str], bool], other: str = "") -> str:
        if name:
            self.named(name, argument)
            if not fits(name):
                raise InvalidInputError(
                    f"{self.noun.text}: column {name!r} holds {self.kinds[name]}, and {argument}= names one of "
                    f"{content}; {self._all()}"
                )
            return name
        fitting = [column for column in self.kinds if fits(column)]
        if len(fitting) == 1:
            return fitting[0]
        example = self.noun.way.format(argument=argument, column=(fitting or ["COLUMN"])[0]) + other
        if fitting:
            raise InvalidInputError(
                f"{self.noun.text}: {len(fitting)} columns hold {content}: {', '.join(fitting)}; {example}"
            )
        raise InvalidInputError(f"{self.noun.text}: no column is known to hold {content}; {example}; {self._all()}")

    def _all(self) -> str:
        return f"it has {listed([f'{name} ({kind})' for name, kind in self.kinds.items()], most=12)}"


def column_ids(values: Sequence[Any], column: str, noun: str) -> list[str]:
    """The ids of samples from the values of a column. Raises InvalidInputError for one that is missing."""
    if (index := next((i for i, value in enumerate(values) if value is None), None)) is not None:
        raise InvalidInputError(f"{noun}: column {column!r}, which id= names, is empty at sample {index}; name another")
    return [str(value) for value in values]


def require_split(split: str, names: Sequence[str], noun: str) -> str:
    """The split to open: the one that the user names, or the only one. Raises InvalidInputError, which lists them."""
    if split in names:
        return split
    if not split and len(names) == 1:
        return names[0]
    choice = f"choose one by --data-set split={names[0]}" if names else "leave split out"
    raise InvalidInputError(
        f"{noun} has {'no split ' + repr(split) if split else f'{len(names)} splits'}: {', '.join(names) or 'none'}; "
        f"{choice}"
    )
