"""The page's colours: they stand out from the paper, and colour-blind people tell them apart, in both themes."""

import re
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import pytest

Floats = npt.NDArray[np.float64]

VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}  # fmt: skip
"""How linear RGB is seen, Machado et al. 2009 at full severity."""

TO_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
TO_LAB = np.array(
    [[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.808675766]]
)  # fmt: skip
"""Oklab, in which equal distances look about equal: Ottosson 2020."""


def themes() -> dict[str, dict[str, Floats]]:
    """Linear RGB of each variable of the style, by theme."""
    style = files("kdcache.pipelines.compare").joinpath("page.css").read_text("utf-8")
    light, dark = style.split("@media (prefers-color-scheme: dark)")[:2]
    return {
        name: {key: linear(colour) for key, colour in re.findall(r"--([\w-]+): (#\w{6});", part)}
        for name, part in (("light", light), ("dark", dark))
    }


def linear(colour: str) -> Floats:
    values = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: Floats, other: Floats) -> float:
    """WCAG 2.1."""
    lights = sorted(float(colour @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_from_the_paper(theme: str) -> None:
    """A contrast of 3 for what is drawn, 4.5 for text."""
    colours = themes()[theme]
    assert min(contrast(colours[name], colours["paper"]) for name in ("ink", "muted")) >= 4.5
    assert contrast(colours["loud"], colours["loud-paper"]) >= 4.5
    assert min(contrast(colours[f"g{number}"], colours["paper"]) for number in range(9)) >= 3


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_groups_are_told_apart_by_everybody(theme: str, vision: str) -> None:
    """Among groups, and from the teacher's ink. 0.02 is about what can just be seen side by side."""
    colours = themes()[theme]
    places = [TO_LAB @ np.cbrt(TO_CONES @ np.clip(VISION[vision] @ colours[f"g{number}"], 0, 1)) for number in range(9)]
    distances = [
        float(np.linalg.norm(places[one] - places[other])) for one in range(9) for other in range(one)
    ]  # fmt: skip
    assert min(distances) >= 0.08
