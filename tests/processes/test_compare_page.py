"""The page of a comparison in a browser: it asks for nothing, complains of nothing, sorts, and fits narrow windows."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdcache.pipelines.compare.page import write_page
from tests.kits.browser import Browser, browser
from tests.kits.comparisons import comparison, hostile, many_classes

NUMBERS = "return [...document.querySelectorAll('tbody.rows tr')].map(row => row.cells[arguments[0]].dataset.sort)"
ORDER = "return [...document.querySelectorAll('tbody.rows .chip')].map(chip => chip.textContent).join('')"
STATE = "return document.querySelectorAll('table.sortable thead th')[arguments[0]].getAttribute('aria-sort')"
CLICK = "document.querySelectorAll('table.sortable thead button')[arguments[0]].click()"
WIDE = """
return [...document.querySelectorAll('body *')]
  .filter(part => part.getBoundingClientRect().right > innerWidth + 1 && !part.parentElement.closest('.scroll'))
  .map(part => part.outerHTML.slice(0, 80))
"""
TEXT_HEIGHTS = """
return [...document.querySelectorAll('svg text')].map(text => {
  const turn = text.getScreenCTM();
  return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(turn.a, turn.b);
})
"""
COLOURS = """
return ['h1', '.plot svg text', '.chip.g1', '.chip.g2'].map(name => {
  const style = getComputedStyle(document.querySelector(name));
  return name.startsWith('.plot') ? style.fill : name.startsWith('.chip') ? style.backgroundColor : style.color;
})
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "usual": comparison(groups=5, pictures=6),
        "hostile": hostile(),
        "many": comparison(groups=14, seeds=1, rows=2000, class_names=many_classes(), pictures=4),
        "unlabelled": comparison(labelled=False),
        "single": comparison(groups=1, seeds=1),
    }
    for name, one in made.items():
        write_page(one, str(folder / f"{name}.html"))
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("name", ["usual", "hostile", "many", "unlabelled", "single"])
def test_the_page_asks_for_nothing_complains_of_nothing_and_fits(
    chromium: Browser, pages: dict[str, Path], name: str
) -> None:
    for width in (400, 1400):
        chromium.open(pages[name], width=width)
        chromium.run("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        assert chromium.run("return document.documentElement.scrollWidth") <= width
        assert chromium.run(WIDE) == []
        assert min(chromium.run(TEXT_HEIGHTS)) >= 10
        assert chromium.complaints() == []
        assert set(chromium.requests()) == {pages[name].as_uri()}
        assert chromium.run("return document.title").startswith("Students of")


def test_code_of_strangers_does_not_run(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["hostile"])
    assert chromium.run("return document.scripts.length") == 1
    assert chromium.run("return [...document.images].every(image => image.src.startsWith('data:image/png'))")
    assert chromium.run("return [...document.images].every(image => image.naturalWidth > 0)")
    assert "<img src=x onerror=alert(1)>" in chromium.run("return document.querySelector('h1').textContent")


def test_the_policy_stops_code_that_is_not_the_page_s(
    chromium: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    text = pages["usual"].read_text()
    evil = "<script>document.title = 'evil'</script><img src=x onerror=\"document.title = 'evil'\"></main>"
    (tmp_path / "evil.html").write_text(text.replace("</main>", evil))
    chromium.open(tmp_path / "evil.html")
    assert chromium.run("return document.title") != "evil"
    assert any("Content Security Policy" in line for line in chromium.complaints())


def test_a_click_on_a_header_sorts_and_another_turns_the_order(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["usual"])
    before = chromium.run(ORDER)
    for _ in range(2):
        chromium.run(CLICK, 1)
        falling = [float(number) for number in chromium.run(NUMBERS, 1)]
        assert falling == sorted(falling, reverse=True)
        assert chromium.run(STATE, 1) == "descending"
        chromium.run(CLICK, 1)
        rising = [float(number) for number in chromium.run(NUMBERS, 1)]
        assert rising == sorted(rising)
        assert chromium.run(STATE, 1) == "ascending"
    chromium.run(CLICK, 0)
    assert (chromium.run(ORDER), chromium.run(STATE, 1)) == (before, "none")
    assert chromium.run("return document.querySelector('tbody.reference th').textContent.trim()").startswith("T")


def test_the_keyboard_sorts(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["usual"])
    focused = "return document.activeElement.closest('th') ? document.activeElement.textContent : ''"
    for _ in range(30):
        chromium.press("Tab")
        if chromium.run(focused) == "nll":
            break
    assert chromium.run(focused) == "nll"
    chromium.press("Enter")
    assert chromium.run(STATE, 2) == "descending"
    chromium.press(" ")
    assert chromium.run(STATE, 2) == "ascending"
    numbers = [float(number) for number in chromium.run(NUMBERS, 2)]
    assert numbers == sorted(numbers)


def test_a_group_without_a_value_is_last_either_way(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["usual"])
    heads = chromium.run(
        "return [...document.querySelectorAll('.measures thead button')].map(head => head.textContent)"
    )
    index = heads.index("accuracy")
    chromium.run("document.querySelector('tbody.rows tr').cells[arguments[0]].dataset.sort = ''", index)
    for _ in range(2):
        chromium.run(CLICK, index)
        assert chromium.run(NUMBERS, index)[-1] == ""


def test_both_themes_are_drawn(chromium: Browser, pages: dict[str, Path]) -> None:
    seen = {}
    for theme in ("light", "dark"):
        chromium.open(pages["usual"], theme=theme)
        picture = np.asarray(Image.open(io.BytesIO(chromium.screenshot())).convert("L"))
        seen[theme] = (float(np.median(picture)), tuple(chromium.run(COLOURS)))
    assert seen["light"][0] > 230
    assert seen["dark"][0] < 45
    assert all(one != other for one, other in zip(seen["light"][1], seen["dark"][1], strict=True))
