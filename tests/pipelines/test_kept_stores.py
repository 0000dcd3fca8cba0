"""Stores with features and taps, from extract to every command that walks over rows: a real teacher of digits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from kdcache.errors import InterruptedRunError, InvalidInputError, MismatchError
from kdcache.pipelines.extract.dry_run import estimate
from kdcache.pipelines.extract.sizes import Sizes
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.stats import store_stats
from tests.kits import stages
from tests.kits.stages import ROWS, Stage, committed, stop_after
from tests.kits.stores import all_files
from tests.kits.views import trained_network

stage = stages.stage

KEEP = ("features", "head", "tap:1", "stages", "tap:3@2x2")
TAPS = ["1", "5@1x1", "12@1x1", "13@1x1", "3@2x2"]

TUNED = '''"""kdcache's convnet with a tap that a file beside it tunes: no weight and no answer tells."""
from pathlib import Path

import torch
from kdcache.networks import convnet


class Net(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.network, self.tap = convnet(width=8, num_classes=num_classes), torch.nn.Identity()

    def forward(self, images):
        self.tap(images.mean(dim=(2, 3)) * float((Path(__file__).parent / "tune").read_text()))
        return self.network(images)
'''


class Holder(nn.Module):
    """The trained network under the name that it has inside `TUNED`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def asked(stage: Stage, store: Path, **changes: Any) -> ExtractSettings:
    return stage.asked(store, **{"keep": KEEP, **changes})


@pytest.fixture(scope="module")
def kept(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "a.kd"
    sizes: list[Sizes] = []
    extract(asked(stage, path), announce=sizes.append)
    outputs = 2 * ROWS * 2 * (16 + 8 * 64 + 8 + 16 + 16 + 32)
    assert sizes[0].output_bytes == outputs
    assert f"{outputs / 1000:.3g} kB of features and taps" in sizes[0].text
    assert sizes[0].files == len(all_files(path))
    return path


@pytest.fixture(scope="module")
def tuned(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with two stores of equal identity, whose tap is twice as large in the second; and their teacher."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "net.py").write_text(TUNED)
    save_weights(folder / "w.safetensors", Holder(trained_network()))
    teacher = {"teacher": f"{folder}/net.py:Net", "teacher_set": {}, "weights": str(folder / "w.safetensors")}
    for tune, name in ((1.0, "a.kd"), (2.0, "b.kd")):
        (folder / "tune").write_text(str(tune))
        extract(stage.asked(folder / name, keep=("tap:tap",), views="1", **teacher))
    return folder, teacher


def test_stages_stand_where_they_were_asked_in_the_network_s_order(kept: Path) -> None:
    store = Store.open(kept)
    assert [tap.name for tap in store.identity.encoding.taps] == TAPS
    assert store.identity.encoding.features == store.identity.encoding.head == 16


def test_a_run_that_was_stopped_ends_in_equal_bytes(stage: Stage, kept: Path, tmp_path: Path) -> None:
    stop, progress = stop_after(4)
    with pytest.raises(InterruptedRunError):
        extract(asked(stage, tmp_path / "b.kd"), stop=stop, progress=progress)
    assert 0 < committed(tmp_path / "b.kd") < stages.BLOCKS
    extract(asked(stage, tmp_path / "b.kd"))
    assert Store.open(tmp_path / "b.kd").content_id == Store.open(kept).content_id


def test_views_are_added_in_any_order(stage: Stage, tmp_path: Path) -> None:
    for name, spans in (("a.kd", ("0:1", "1:2")), ("b.kd", ("1:2", "0:1"))):
        for span in spans:
            extract(asked(stage, tmp_path / name, views=span))
    stores = [Store.open(tmp_path / name) for name in ("a.kd", "b.kd")]
    assert stores[0].content_id == stores[1].content_id


@pytest.mark.parametrize("keep", [(), ("features", "head"), ("features", "head", "stages", "tap:1", "tap:3@2x2")])
def test_a_later_pass_keeps_the_same_or_is_refused(stage: Stage, kept: Path, keep: tuple[str, ...]) -> None:
    words = "features,head," + ",".join(f"tap:{name}" for name in TAPS)
    with pytest.raises(MismatchError, match=rf"encoding.taps: the store has(.|\n)*made with --keep {words}"):
        extract(asked(stage, kept, keep=keep, views="2:3"))


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (("tap:layer4",), r"the teacher has no layer layer4; its layers are 0, 1, 2, .* \(kdcache taps lists all"),
        (("stages", "tap:5@1x1"), r"names tap 5@1x1 twice: it is one of the stages; leave out tap:5@1x1"),
        (("tap:0@99x1",), r"tap 0@99x1 of the teacher is larger than the layer's own \[8, 8, 8\]"),
        (("features", "features"), r"features is named twice"),
        (
            ("layer4",),
            r"'layer4' is none of features, head, stages, tap:LAYER and tap:LAYER@HxW; .* kept as tap:layer4",
        ),
        (("tap:features",), r"features is the input of the classifier, which --keep features keeps"),
        (("tap:a b",), r"tap 'a b' is not LAYER or LAYER@HxW"),
    ],
)
def test_what_cannot_be_kept_is_refused(stage: Stage, tmp_path: Path, keep: Any, message: str) -> None:
    with pytest.raises((InvalidInputError, ValueError), match=message):
        extract(asked(stage, tmp_path / "no.kd", keep=keep))
    assert not (tmp_path / "no.kd").exists()


def test_a_network_without_stages_is_told(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text(
        "import torch\ndef net(num_classes=10):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))\n"
    )
    flat = {"teacher": f"{tmp_path}/flat.py:net", "teacher_set": {}, "weights": "", "keep": ("stages",)}
    with pytest.raises(InvalidInputError, match=r"--keep stages: the teacher has no stages, .*--keep tap:LAYER"):
        extract(stage.asked(tmp_path / "no.kd", **flat))


def test_a_map_too_large_is_refused_before_any_work(stage: Stage, tmp_path: Path) -> None:
    big = {"transform_set": {"padding": 1, "flip": 0.0}, "keep": ("tap:0",), "views": "4000"}
    message = (
        r"tap 0 of 8 x 8 x 8 takes 262144000 bytes in 64 rows of 4000 views, allowed are 256000000; keep a pooled "
    )
    message += r"output, such as --keep tap:0@7x7, or extract fewer views at a time, --views 0:3906"
    for call in (extract, estimate):
        with pytest.raises(InvalidInputError, match=message):
            call(stage.asked(tmp_path / "no.kd", **big))
    assert not (tmp_path / "no.kd").exists()


def test_the_dry_run_counts_them(stage: Stage, kept: Path, tmp_path: Path) -> None:
    found = estimate(asked(stage, tmp_path / "dry.kd"))
    store = Store.open(kept)
    shards = [commit.shards for commit in store.segments[0].commits().values()]
    sizes = sum(by_name[name].size for by_name in shards for name in store.identity.encoding.outputs)
    assert found.output_bytes == pytest.approx(sizes, rel=0.25)
    assert abs(found.bytes - found.label_bytes - found.output_bytes) <= 1
    assert found.block == store.segments[0].layout.block
    assert not (tmp_path / "dry.kd").exists()


def test_stats_show_their_spread(kept: Path) -> None:
    store = Store.open(kept)
    stats = {output.name: output for output in store_stats(store).outputs}
    assert list(stats) == ["features", *TAPS]
    for name in TAPS:
        rows = [store.load(view, np.arange(ROWS), taps=[name]).tap(name) for view in (0, 1)]
        values = np.stack(rows).astype(np.float64)
        expected = [values.mean(), values.std(), (values == 0).mean(), np.abs(values).max()]
        assert [stats[name].mean, stats[name].std, stats[name].zeros, stats[name].largest] == pytest.approx(expected)
    assert stats["5@1x1"].shape == (8, 1, 1)
    assert stats["features"].std > 0


def test_verify_asks_the_teacher_for_them(stage: Stage, kept: Path) -> None:
    live = {"data": "digits", "data_set": {"limit": ROWS}, "rows": 100}
    own = {"teacher": stages.NETWORK, "teacher_set": {"width": 8}, "weights": stage.weights}
    verdict = verify(VerifySettings.model_validate({"store": str(kept), **live, **own}))
    assert verdict.whole
    assert "0 of 6 outputs differ" in verdict.checks[-1].detail


def test_a_teacher_whose_layer_gives_other_numbers_is_found(tuned: tuple[Path, dict[str, Any]]) -> None:
    """Its weights and answers are the store's."""
    folder, teacher = tuned
    live = {"data": "digits", "data_set": {"limit": ROWS}, "rows": 100, **teacher}
    verdicts = [
        verify(VerifySettings.model_validate({"store": str(folder / name), **live})) for name in ("a.kd", "b.kd")
    ]
    assert [check.name for check in verdicts[0].checks if not check.passed] == ["teacher outputs"]
    assert "1 of 1 outputs differ" in verdicts[0].checks[-1].detail
    assert verdicts[1].whole
    difference = diff_stores(Store.open(folder / "a.kd"), Store.open(folder / "b.kd"), rows=0)
    assert not difference.identity
    assert "taps.0" in difference.content[0].a
    assert difference.rows is not None
    assert difference.rows.kl_ab.max == 0
    assert difference.rows.outputs[0].relative == pytest.approx(1.0)  # b is 2 a


def test_diff_compares_those_of_equal_name_and_shape(stage: Stage, kept: Path, tmp_path: Path) -> None:
    extract(asked(stage, tmp_path / "b.kd", keep=("tap:3@2x2", "tap:1@4x4", "features")))
    difference = diff_stores(Store.open(kept), Store.open(tmp_path / "b.kd"), rows=0)
    assert difference.rows is not None
    assert {output.name: output.relative for output in difference.rows.outputs} == {"3@2x2": 0.0, "features": 0.0}
