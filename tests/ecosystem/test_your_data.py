"""docs/your_data.md: each of its examples runs as it stands, by the line that names it."""

import re
import textwrap
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from kdcache.base.specs import parse_arguments
from kdcache.views.images import view_tensor
from kdcache.views.sources import open_data
from kdcache.views.transforms import image_of, open_plan
from tests.kits.house import ROOT

PAGE = (ROOT / "docs/your_data.md").read_text()
HEAD = re.compile(r"# (\w+\.py) +--data (\S+)(.*)")
EXAMPLES = [
    textwrap.dedent(block).strip()
    for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE, re.MULTILINE)
    if "# " in block
]
EXAMPLES = [example for example in EXAMPLES if HEAD.match(example)]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("cat_1", "dog_1", "cat_2"):
        Image.new("RGB", (8, 8), "gray").save(tmp_path / f"photos/{name}.png")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows: dict[str, Any] = {
        "image": [{"bytes": (tmp_path / "photos/cat_1.png").read_bytes(), "path": None}],
        "label": [1],
    }
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "photos.hf"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_all_forms() -> None:
    assert len(EXAMPLES) == 6


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: str(text).split()[1])
def test_an_example_opens_and_is_drawn(photos: Path, example: str) -> None:
    head = HEAD.match(example)
    assert head is not None
    (photos / head[1]).write_text(example)
    data = open_data(head[2], parse_arguments(re.findall(r"--data-set (\S+)", head[3]), "--data-set"))
    transform, _ = open_plan("center", {"size": 8}, mix="none", mix_alpha=1.0, seed=0)
    for index in range(len(data)):
        image = transform(image_of(data.samples[index][0], index, transform))
        assert view_tensor(image, "the view").shape[-2:] == (8, 8)
    assert data.identity().rows == len(data) > 0
    assert (data.labels >= -1).all()
    assert data.is_labelled


def test_a_data_set_of_hugging_face_in_a_format_is_rows_that_are_dicts(photos: Path) -> None:
    """Its own transform, or a format, changes rows: then they are taken as it gives them."""
    (photos / "formatted.py").write_text(
        "from datasets import load_from_disk\n\n"
        "def grey(rows):\n    return {**rows, 'image': [image.convert('L') for image in rows['image']]}\n\n"
        "def data():\n    return load_from_disk('photos.hf').with_transform(grey)\n\n"
        "def stream():\n    return load_from_disk('photos.hf').to_iterable_dataset()\n"
    )
    data = open_data("formatted.py:data", {})
    assert (data.samples[0][0].mode, data.class_names, data.labels.tolist()) == ("L", ("cat", "dog"), [1])
    with pytest.raises(Exception, match="is a IterableDataset"):
        open_data("formatted.py:stream", {})
