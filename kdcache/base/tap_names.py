"""Names and shapes of taps: a layer's name as it is, or `LAYER@HxW` for its output pooled to H x W; and the words of
`--keep`. No torch."""

import re
from dataclasses import dataclass

from kdcache.errors import InvalidInputError

KEPT = ("features", "head", "stages")  # words of --keep, beside tap:NAME
TAP = "tap:"
FEATURES = "features"  # the pooled penultimate output: the input of the classifier
NAME_MAX = 200
TAP_NAME = re.compile(r"(?P<layer>[A-Za-z0-9._]+)(?:@(?P<height>[1-9][0-9]{0,3})x(?P<width>[1-9][0-9]{0,3}))?")


@dataclass(frozen=True)
class TapName:
    """A layer and the size to which its output is pooled adaptively; None: the output as it is."""

    layer: str
    size: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> "TapName":
        """The name that a text such as `layer4` or `layer4@7x7` gives. Raises InvalidInputError for another."""
        match = TAP_NAME.fullmatch(text) if len(text) <= NAME_MAX else None
        if match is None:
            raise InvalidInputError(
                f"tap {text!r} is not LAYER or LAYER@HxW, of at most {NAME_MAX} letters, digits, dots and underscores; "
                "write for example layer4 or layer4@7x7 (kdcache taps NETWORK lists the layers)"
            )
        height, width = match["height"], match["width"]
        return cls(match["layer"], None if height is None else (int(height), int(width)))

    def __str__(self) -> str:
        return self.layer if self.size is None else f"{self.layer}@{self.size[0]}x{self.size[1]}"


def placed_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of one row's shape [C, H, W]; of tokens [T, D]: D, T, 1; of [D]: D, 1, 1."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return (shape[1], shape[0], 1) if len(shape) == 2 else (shape[0], 1, 1)


def require_kept(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words of `--keep` as they are. Raises ValueError for one that says nothing, or is given twice."""
    for word in words:
        if not word.startswith(TAP) and word not in KEPT:
            advice = f"; a layer is kept as tap:{word}" if TAP_NAME.fullmatch(word) else ""
            raise ValueError(f"{word!r} is none of {', '.join(KEPT)}, tap:LAYER and tap:LAYER@HxW{advice}")
        if words.count(word) > 1:
            raise ValueError(f"{word} is named twice; name each once")
        if word.startswith(TAP):
            _require_tap(word.removeprefix(TAP))
    return words


def _require_tap(name: str) -> None:
    try:
        tap = TapName.parse(name)
    except InvalidInputError as error:
        raise ValueError(str(error)) from error
    if tap.layer == FEATURES:
        advice = "for the output of a module of that name, name its last part (kdcache taps NETWORK lists them)"
        raise ValueError(
            f"{TAP}{name}: {FEATURES} is the input of the classifier, which --keep {FEATURES} keeps; {advice}"
        )
