"""drawing: each batch's images in its own order, the same ones however they are drawn, without any store."""

import numpy as np
import pytest
import torch

from kdcache.base.view_span import ViewSpan
from kdcache.training.batch_order import BatchOrder, BatchRows
from kdcache.training.loader_options import FeedOptions
from kdcache.training.view_drawing import ViewDrawing
from kdcache.views.draw import ViewDataset
from kdcache.views.mixing import mix_images
from kdcache.views.transforms import build_transform
from kdcache.views.view_stack import ViewRequest
from tests.kits.views import Mix, pictures, plan_of

ROWS = 70


def drawing_of(mix: Mix, **options: object) -> ViewDrawing:
    plan = plan_of("light", mix)
    dataset = ViewDataset(pictures(ROWS), np.arange(ROWS)[::-1].copy(), plan, build_transform("light", {})[0])
    return ViewDrawing(dataset, FeedOptions(**options))  # type: ignore[arg-type]


def batch_of(*positions: int, view: int = 0) -> BatchRows:
    rows = np.array(positions, dtype=np.int64)
    return BatchRows(0, view, 0, 0, rows, rows, (len(rows),))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
def test_images_are_those_of_the_rows_mixed_with_their_partners(mix: Mix, workers: int) -> None:
    whole, prepared = drawing_of(mix), drawing_of("none")
    batches = [batch_of(3, 69, 5), batch_of(), batch_of(7, 6, view=1), batch_of()]
    drawn_batches = list(drawing_of(mix, workers=workers).stream(batches))
    assert [id(batch) for batch, _ in drawn_batches] == list(map(id, batches))
    for batch, images in drawn_batches:
        if not len(batch.positions):
            assert (len(images.images), len(images.drawn.pixels), len(images.partners), len(images.lam)) == (0, 0, 0, 0)
            continue
        everyone = batch_of(*range(ROWS), view=batch.view)
        (_, plain), (_, drawn) = next(prepared.stream([everyone])), next(whole.stream([everyone]))
        assert torch.equal(images.images, drawn.images[batch.positions])
        rows = images.drawn
        assert rows.pixels[: len(batch.positions)].tolist() == drawn.drawn.pixels[batch.positions].tolist()
        assert images.partners.tolist() == drawn.partners[batch.positions].tolist()
        mixing = whole.dataset[request_of(everyone)].mixing[0]
        assert torch.equal(drawn.images, mix_images(plain.images, mixing, mixing.partners, mix))
        assert (images.lam == mixing.lam[batch.positions]).all()


def request_of(batch: BatchRows) -> ViewRequest:
    return ViewRequest(ViewSpan.of(batch.view), batch.positions)


def test_images_are_normalised_by_the_means_that_were_given() -> None:
    means, stds = (0.1, 0.2, 0.3), (0.5, 0.25, 1.0)
    (_, images) = next(drawing_of("none", mean=means, std=stds).stream([batch_of(4)]))
    raw = drawing_of("none").dataset[request_of(batch_of(4))].images[0].float() / 255
    expected = (raw - torch.tensor(means)[:, None, None]) / torch.tensor(stds)[:, None, None]
    torch.testing.assert_close(images.images, expected)


def test_spread_views_begin_at_the_first_position_and_are_not_mixed() -> None:
    drawing = drawing_of("mixup")
    (_, images) = next(drawing_of("none").stream([batch_of(0, view=1)]))
    order = BatchOrder(
        range(ROWS), ROWS, plan_of("light", "none"), (1,), batch_size=8, seed=0, block=64, window_rows=64
    )
    views = drawing.spread_views(order, 3)
    assert len(views) == 3
    assert torch.equal(next(iter(views.values())), images.images)


def test_a_share_without_rows_is_left_as_it_is_once_caches_are_distrusted() -> None:
    drawing, batch = drawing_of("none"), batch_of()
    drawing.distrusts = True
    ((_, images),) = drawing.stream([batch])
    assert drawing.compared(batch, images, lambda rows: None) is images
