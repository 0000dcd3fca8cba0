"""Forwards of 16 rows on a CPU: a row's answer hangs neither on the batch, nor on --batch-size, nor on who asks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.networks import teacher as teacher_module
from kdcache.networks.answer import Answer, joined
from kdcache.networks.live_answers import drawn_again, live_log_probs
from kdcache.networks.small import convnet
from kdcache.networks.teacher import CPU_ROWS
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import Stage
from tests.kits.stores import all_files
from tests.kits.views import FULL, Mix, make_setting, picture_data, plan_of, random_teacher, teacher_of

stage = stages.stage


def images(rows: int) -> Tensor:
    values = torch.randn(rows, 3, 17, 15, generator=torch.Generator().manual_seed(rows))
    return values.to(memory_format=torch.channels_last)


def test_all_forwards_have_16_rows_in_the_layout_that_they_came_in() -> None:
    seen: list[tuple[int, bool]] = []
    network = convnet(width=2, channels=3)
    network.register_forward_pre_hook(
        lambda module, inputs: seen.append((len(inputs[0]), inputs[0].is_contiguous(memory_format=torch.channels_last)))
    )
    teacher = teacher_of(network, channels=3)
    for rows in (1, 16, 37):
        seen.clear()
        assert len(teacher.answer(images(rows)).logits) == len(teacher.raw_answer(images(rows)).logits) == rows
        assert seen == [(CPU_ROWS, True)] * 2 * -(-rows // CPU_ROWS)
    seen.clear()
    assert len(teacher.answer_at_once(images(37)).logits) == 37
    assert seen == [(37, True)]


def test_a_row_is_answered_alike_among_other_rows() -> None:
    teacher = random_teacher(channels=3, classes=9)
    teacher.watch(["3", "features"])
    batch = images(40)
    whole = teacher.answer(batch)
    for rows in (5, 16, 21, 39):
        part = teacher.answer(batch[:rows])
        assert torch.equal(part.logits, whole.logits[:rows])
        assert part.features is not None
        assert whole.features is not None
        assert torch.equal(part.features, whole.features[:rows])
        assert all(torch.equal(part.taps[name], whole.taps[name][:rows]) for name in ("3", "features"))


@pytest.mark.parametrize("mix", ["none", "cutmix"])
def test_rows_that_are_drawn_and_asked_again_are_answered_to_the_bit(mix: Mix) -> None:
    setting = make_setting(picture_data(70), random_teacher(channels=3, classes=9), plan_of(mix=mix), FULL)
    answers = {}
    for rows in (64, 16, 10):
        positions = np.arange(rows)
        drawn = drawn_again(setting.dataset, 1, positions)
        answers[rows] = live_log_probs(setting.teacher, setting.dataset, drawn, rows)
        assert np.array_equal(answers[rows], answers[64][:rows])
    at_once = live_log_probs(setting.teacher, setting.dataset, drawn, 10, at_once=True)
    assert np.abs(at_once - answers[10]).max() < 1e-3


@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_bytes_do_not_hang_on_the_batch_size(stage: Stage, tmp_path: Path, mix: Mix) -> None:
    for rows in (64, 512):
        extract(stage.asked(tmp_path / f"{rows}.kd", batch_size=rows, mix=mix, keep=("features", "head")))
    small, large = (
        {name: data for name, data in all_files(tmp_path / f"{rows}.kd").items() if name.startswith("views-")}
        for rows in (64, 512)
    )
    assert len(small) > 20
    assert small == large


def test_a_store_that_was_begun_with_other_forwards_goes_on(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions before did: forwards of whole batches."""
    path = tmp_path / "a.kd"
    with monkeypatch.context() as patch:
        patch.setattr(teacher_module, "CPU_ROWS", None)
        before = extract(stage.asked(path, batch_size=256))
    assert [note for note in before.notes if "a block has 128 rows" in note and "--batch-size is 256" in note]
    again = extract(stage.asked(path))
    assert not again.notes
    assert (again.content_id, again.blocks_done_before) == (before.content_id, before.blocks)
    extract(stage.asked(path, views="2:4"))
    store = Store.open(path)
    assert [segment.views.start for segment in store.segments] == [0, 2]
    settings = VerifySettings(
        store=str(path), data="digits", data_set={"limit": stages.ROWS}, teacher=stages.NETWORK,
        teacher_set={"width": 8}, weights=stage.weights, workers=0,
    )  # fmt: skip
    assert not [check for check in verify(settings).checks if not check.passed]


def test_rows_of_other_shapes_are_refused() -> None:
    logits = torch.zeros(2, 3)
    parts = [Answer(logits, None, {"layer": torch.zeros(2, width)}) for width in (4, 5)]
    with pytest.raises(InvalidInputError, match=r"layer layer of the teacher has shape \[4\] for some rows and \[5\]"):
        joined(parts, 4)
    assert joined([Answer(logits, logits), Answer(logits)], 3).features is None

    class Growing(nn.Module):
        calls = 0

        def forward(self, views: Tensor) -> Tensor:
            self.calls += 1
            return torch.zeros(len(views), 2 + self.calls)

    with pytest.raises(InvalidInputError, match="the answer of the teacher has shape"):
        teacher_of(Growing(), channels=3).answer(images(20))
