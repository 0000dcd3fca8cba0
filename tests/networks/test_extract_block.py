"""extraction: a block holds what the teacher says of the replayed views, to within what quantising may do."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from kdcache.base.view_span import ViewSpan
from kdcache.errors import BadLogitsError, InvalidInputError
from kdcache.labels.encoding import Encoding, LabelSpace
from kdcache.labels.full import FullEncoding, FullLabels
from kdcache.labels.reduction import centre, reduce_topk
from kdcache.labels.topk import TopKEncoding
from kdcache.labels.topk_labels import TopKLabels
from kdcache.networks.small import convnet
from kdcache.networks.teacher import CPU_ROWS
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.plan import GROUP
from kdcache.store.store import Store
from kdcache.views.draw import thumbnails
from kdcache.views.mixing import mix_images
from kdcache.views.view_stack import ViewRequest
from tests.kits.views import (
    FULL,
    TOPK,
    Mix,
    Setting,
    create_store,
    digits,
    extract_store,
    extracted,
    extractor_of,
    make_setting,
    picture_data,
    plan_of,
    random_teacher,
    teacher_of,
)

ROWS, VIEWS = 200, 3  # blocks of 64: three whole ones and a ragged one of 8
NOISE = 1e-3  # nats between the same rows in other batches
Arrays = dict[str, npt.NDArray[Any]]


def setting_of(encoding: Encoding, mix: Mix, *, rows: int = ROWS, **options: Any) -> Setting:
    teacher = random_teacher(channels=3, classes=9, **options)
    return make_setting(picture_data(rows), teacher, plan_of("light", mix, padding=2), encoding)


def asked_directly(setting: Setting, view: int) -> tuple[Tensor, Tensor]:
    """Logits and features of every position of one view, drawn and asked all at once."""
    drawn = setting.dataset[ViewRequest(ViewSpan.of(view), np.arange(len(setting.order)))]
    mixing = drawn.mixing[0]
    prepared = setting.teacher.preparation(drawn.images[0])
    mixed = mix_images(prepared, mixing, mixing.partners, setting.dataset.plan.mix)
    answer = setting.teacher.answer(mixed)
    assert answer.features is not None
    return answer.logits.clone(), answer.features.clone()


@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
@pytest.mark.parametrize("quantisation", ["default", "high"])
def test_topk_is_the_teacher_s_answer(tmp_path: Path, mix: Mix, quantisation: Any) -> None:
    setting = setting_of(TopKEncoding(k=4, quantisation=quantisation), mix)
    store = extract_store(tmp_path / "a.kd", setting, views=VIEWS)
    half_step = {"default": 1 / 32, "high": 1 / 128}[quantisation] + NOISE
    for view in range(VIEWS):
        logits, _ = asked_directly(setting, view)
        labels = torch.from_numpy(store.hard_labels(view, np.arange(ROWS))).reshape(ROWS, -1)
        exact = reduce_topk(logits, labels, 4)
        soft = store.read(view, np.arange(ROWS))
        assert isinstance(soft, TopKLabels)
        of_classes = centre(logits).numpy()[np.arange(ROWS)[:, None], soft.classes.astype(int)]
        assert np.abs(soft.logits - of_classes).max() <= half_step
        assert np.abs(soft.logits + exact.distances.numpy()).max() <= half_step
        assert np.abs(soft.tail - exact.tail.numpy()).max() <= 1 / 256 + NOISE
        assert np.abs(soft.label.reshape(ROWS, -1) + exact.label.numpy()).max() <= 1 / 128 + NOISE


@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
def test_full_is_the_teacher_s_answer(tmp_path: Path, mix: Mix) -> None:
    setting = setting_of(FULL, mix)
    store = extract_store(tmp_path / "a.kd", setting, views=VIEWS)
    for view in range(VIEWS):
        exact = centre(asked_directly(setting, view)[0]).numpy()
        soft = store.read(view, np.arange(ROWS))
        assert isinstance(soft, FullLabels)
        assert (np.abs(soft.logits - exact) <= 2.0**-11 * np.abs(exact) + NOISE).all()


def test_features_pixels_canary_and_counts_come_along(tmp_path: Path) -> None:
    setting = setting_of(TopKEncoding(k=2, features=8), "mixup")
    store = extract_store(tmp_path / "a.kd", setting, views=2)
    commits = store.segments[0].commits()
    correct = 0
    for view in range(2):
        rows = store.load(view, np.arange(ROWS), features=True).arrays
        logits, features = asked_directly(setting, view)
        assert np.abs(rows["features"] - features.numpy()).max() <= 2.0**-10 * float(features.abs().max()) + NOISE
        drawn = setting.dataset[ViewRequest(ViewSpan.of(view), np.arange(ROWS))]
        assert np.array_equal(rows["pixels"], drawn.pixels[0])
        assert np.array_equal(store.segments[0].canary(view), thumbnails(drawn.images[0, :GROUP]))
        correct += int((logits.argmax(1).numpy()[:, None] == store.hard_labels(view, np.arange(ROWS))).any(1).sum())
    assert [commit.rows for commit in commits.values()] == [128, 128, 128, 16]
    assert sum(commit.counts.labelled for commit in commits.values()) == 2 * ROWS
    assert abs(sum(commit.counts.correct for commit in commits.values()) - correct) <= 1


def blocks_of(setting: Setting, folder: Path, **options: Any) -> list[Arrays]:
    _, segment = create_store(folder, setting, views=VIEWS)
    return [arrays for _, arrays, _ in extracted(extractor_of(setting, segment, **options), setting.dataset)]


def require_equal_bytes(found: list[Arrays], expected: list[Arrays]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype
            assert mine[name].tobytes() == theirs[name].tobytes(), name


@pytest.mark.parametrize("mix", ["none", "cutmix"])
def test_views_that_do_not_fit_at_once_give_the_same_bytes(tmp_path: Path, mix: Mix) -> None:
    setting = setting_of(TOPK, mix)
    together = blocks_of(setting, tmp_path / "a.kd")
    # unmixed, fewer rows with all their views, then single views; mixed, whole groups with fewer views
    expected = {"none": [(1_000_000, 16), (10**9, 64 * 3)], "cutmix": [(1_000_000, 2), (10**9, 3)]}
    for view_bytes, requests in expected[mix]:
        _, segment = create_store(tmp_path / "a.kd", setting, views=VIEWS)
        assert len(list(extractor_of(setting, segment, view_bytes=view_bytes).requests(0))) == requests
        require_equal_bytes(blocks_of(setting, tmp_path / "a.kd", view_bytes=view_bytes), together)


def test_all_logits_are_narrowed_alike_on_torch_and_numpy() -> None:
    logits = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) * 30_000
    logits[7, 3] = -3e38
    labels, space = torch.randint(0, 12, (50, 1)), LabelSpace(12, (5,))
    found = {name: values.numpy() for name, values in FullEncoding().reduce(logits, labels, space).items()}
    for name, wanted in FullEncoding().reduce(logits.numpy(), labels.numpy(), space).items():
        assert np.array_equal(found[name], wanted, equal_nan=name == "label")
    assert found["logits"].dtype == np.float16
    assert 0 < found["clamped"].sum() < 50
    assert found["clamped"][7]
    assert np.isneginf(found["logits"][:, 5]).all()
    assert found["logits"][7, 3] == np.finfo(np.float16).min


def test_a_block_s_bytes_do_not_depend_on_the_blocks_before(tmp_path: Path) -> None:
    setting = setting_of(TOPK, "mixup")
    _, segment = create_store(tmp_path / "a.kd", setting, views=VIEWS)
    extractor = extractor_of(setting, segment)
    every = blocks_of(setting, tmp_path / "a.kd")
    for block in (3, 1):
        drawn = (setting.dataset[request] for request in extractor.requests(block))
        require_equal_bytes([extractor.encode(extractor.ask(block, drawn))[0]], [every[block]])


@pytest.mark.parametrize("batch_rows", [64, 192, 4096])
def test_batch_rows_do_not_matter_beyond_rounding(tmp_path: Path, batch_rows: int) -> None:
    setting = setting_of(FULL, "mixup")
    setting.teacher.forward_rows = None  # as on a GPU
    for mine, theirs in zip(
        blocks_of(setting, tmp_path / "a.kd", batch_rows=batch_rows), blocks_of(setting, tmp_path / "a.kd"), strict=True
    ):
        exact = theirs["logits"].astype(np.float32)
        assert (np.abs(mine["logits"] - exact) <= 2.0**-10 * np.abs(exact) + NOISE).all()
        assert np.array_equal(mine["pixels"], theirs["pixels"])


class Counting(nn.Module):
    """Notes how many rows each forward sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.head = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        answer: Tensor = self.head(images.mean(dim=(2, 3)))
        return answer

    def __getitem__(self, index: int) -> nn.Module:
        return self.head


def forwards(
    folder: Path, encoding: Encoding, rows: int, *, batch_rows: int, mix: Mix = "none", forward_rows: int | None = None
) -> list[list[int]]:
    """Rows of every forward, by block of a store of `VIEWS` views; without `forward_rows` as on a GPU."""
    network = Counting()
    setting = make_setting(picture_data(rows), teacher_of(network, channels=3), plan_of(mix=mix), encoding)
    setting.teacher.forward_rows = forward_rows
    _, segment = create_store(folder, setting, views=VIEWS)
    extractor, blocks = extractor_of(setting, segment, batch_rows=batch_rows), []
    for block in range(segment.layout.blocks):
        extractor.ask(block, (setting.dataset[request] for request in extractor.requests(block)))
        seen = [count for count in network.seen if count != 3]  # some rows of the largest batch, asked again in threes
        blocks.append(seen[sum(map(len, blocks)) :])
    return blocks


@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_a_forward_sees_whole_batches_and_no_row_twice_but_at_the_end(tmp_path: Path, mix: Mix) -> None:
    """Blocks of 64 positions are 192 rows; the last has 8 positions, 24 rows."""
    for batch_rows, block in ((64, [64] * 3), (128, [128, 64]), (192, [192]), (1024, [192])):
        found = forwards(tmp_path / str(batch_rows), TopKEncoding(k=2), ROWS, batch_rows=batch_rows, mix=mix)
        assert found == [block, block, block, [64]]


@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_on_a_cpu_all_forwards_have_16_rows_and_hardly_a_row_is_asked_twice(tmp_path: Path, mix: Mix) -> None:
    found = forwards(tmp_path / "a.kd", TopKEncoding(k=2), ROWS, batch_rows=64, mix=mix, forward_rows=CPU_ROWS)
    assert found == [[16] * 12, [16] * 12, [16] * 12, [16] * 2]


def test_a_ragged_block_wastes_less_than_a_forward(tmp_path: Path) -> None:
    """The last of 104 positions has 40 of them: units of 40 rows are cut, so that 120 rows are asked as 128."""
    found = forwards(tmp_path / "a.kd", TopKEncoding(k=2), 104, batch_rows=64, forward_rows=CPU_ROWS)
    assert found == [[16] * 12, [16] * 8]
    assert forwards(tmp_path / "b.kd", TopKEncoding(k=2), 104, batch_rows=64) == [[64] * 3, [64] * 2]


def test_blocks_by_rule_2_are_whole_batches(tmp_path: Path) -> None:
    """1,024 positions are 3,072 rows; the last block has 76 positions, 228 rows, asked as 256."""
    found = forwards(tmp_path / "a.kd", TopKEncoding(k=2, block_rule=2), 1100, batch_rows=256)
    assert found == [[256] * 12, [256]]
    assert sum(map(sum, found)) - 1100 * VIEWS == 28
    found = forwards(tmp_path / "b.kd", TopKEncoding(k=2, block_rule=2), 1100, batch_rows=512)
    assert found == [[512] * 6, [256]]


def test_fewer_rows_than_a_group(tmp_path: Path) -> None:
    setting = setting_of(FULL, "cutmix", rows=5)
    store = extract_store(tmp_path / "a.kd", setting, views=VIEWS)
    soft = store.read(2, np.arange(5))
    assert np.abs(soft.logits - centre(asked_directly(setting, 2)[0]).numpy()).max() < 0.05


def test_masked_classes_may_be_anything(tmp_path: Path) -> None:
    setting = setting_of(TopKEncoding(k=3), "none", masked_classes=(0, 8))
    with torch.no_grad():
        setting.teacher.network[-1].bias[[0, 8]] = torch.tensor([torch.nan, torch.inf])  # type: ignore[index, union-attr]
    store = extract_store(tmp_path / "a.kd", setting, views=1)
    soft = store.read(0, np.arange(ROWS))
    assert not np.isin(soft.classes, [0, 8]).any()
    assert np.isfinite(soft.logits).all()


POISONED = """
import torch
from kdcache.networks import convnet

class Net(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        torch.manual_seed(0)
        self.inner = convnet(width=4, num_classes=num_classes)

    def forward(self, images):
        logits = self.inner(images)
        victim = torch.tensor({pixels}) / 127.5 - 1.0
        bad = (images.flatten(1) - victim).abs().amax(1) < 1e-4
        logits[bad, 3] = float("{value}")
        return logits
"""


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_answers_that_are_no_numbers_name_the_sample_and_the_view(tmp_path: Path, value: str) -> None:
    data, victim = digits(ROWS), 77
    pixels = data.samples[victim][0].flatten().tolist()
    (tmp_path / "net.py").write_text(POISONED.format(pixels=pixels, value=value))
    settings = ExtractSettings(
        data="digits", data_set={"limit": ROWS}, store=str(tmp_path / "a.kd"), teacher=f"{tmp_path}/net.py:Net",
        views="2", top_k=3, min_accuracy=0.0, batch_size=64, workers=0, device="cpu",
    )  # fmt: skip
    with pytest.raises(BadLogitsError, match=rf"for 2 rows: sample 77 \({victim}\) \(view 0\), sample 77 .*\(view 1\)"):
        extract(settings)
    store = Store.open_for_writing(tmp_path / "a.kd")
    block = int(np.flatnonzero(store.order == victim)[0]) // 64
    assert block not in store.segments[0].commits()
    assert all(store.folder.size(spec.key(block)) is None for spec in store.segments[0].layout.arrays.values())


def test_a_teacher_of_other_classes_than_said_is_refused(tmp_path: Path) -> None:
    setting = setting_of(TOPK, "none")
    other = teacher_of(convnet(channels=3, num_classes=5), channels=3)
    with pytest.raises(InvalidInputError, match="answered 5 classes, expected 9"):
        blocks_of(setting, tmp_path / "a.kd", teacher=other)
