"""views: view (i, v) is bit-equal whoever draws it, in whatever batch, order, worker or stage; and how it is seen."""

import random
from dataclasses import replace
from functools import cache
from itertools import pairwise, product
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from kdcache.base.view_span import ViewSpan
from kdcache.errors import SampleError
from kdcache.networks.preparation import Preparation, default_normalisation
from kdcache.store.plan import ViewPlan
from kdcache.training.batch_order import BatchOrder
from kdcache.training.loader import Loader
from kdcache.training.loader_options import FeedOptions
from kdcache.views.draw import ViewDataset, draw_view, own_generators, seed_generators
from kdcache.views.mixing import mix_images, with_partners
from kdcache.views.view_stack import Drawn, ViewRequest
from kdcache.views.workers import draw_requests
from tests.kits.batches import batches_left
from tests.kits.views import TRANSFORMS, Kind, Mix, Pictures, picture, picture_data, pictures, plan_of, view_dataset

Views = dict[tuple[int, int], tuple[Any, ...]]  # (view, position) -> all that this view is
ROWS = 9
VIEWS = 3
CASES: list[tuple[str, Kind, Mix]] = [
    *((name, "pil", "none") for name in TRANSFORMS),
    *((name, "tensor", "none") for name in TRANSFORMS),
    ("RandomResizedCrop", "tensor", "mixup"),
    ("RandomResizedCrop", "pil", "mixup"),
    ("RandomResizedCrop", "tensor", "cutmix"),
    ("ColorJitter", "pil", "cutmix"),
]


def described(drawn: Drawn) -> Views:
    """Pixels, dtype, shape, fingerprint, partner, lambda and box: all that a view is."""
    found = {}
    for v, mixing in enumerate(drawn.mixing):
        for row, position in enumerate(drawn.request.positions.tolist()):
            image = drawn.images[v, row]
            found[drawn.request.views.start + v, position] = (
                image.numpy().tobytes(),
                image.dtype,
                tuple(image.shape),
                int(drawn.pixels[v, row]),
                int(mixing.partners[row]),
                float(mixing.lam[row]),
                tuple(mixing.boxes[row].tolist()),
            )
    return found


@cache
def reference(name: str, kind: Kind, mix: Mix) -> tuple[ViewDataset, Views]:
    """A data set of views, and every view of it as one request for everything gives it: what `extract` asks."""
    dataset = view_dataset(pictures(ROWS, kind), TRANSFORMS[name](), mix)
    return dataset, described(dataset[ViewRequest(ViewSpan(0, VIEWS), np.arange(ROWS))])


class Together(torch.utils.data.Dataset[Drawn]):
    """The data sets of views of all cases as one: the tag of a request says which."""

    def __getitem__(self, request: ViewRequest) -> Drawn:
        return reference(*CASES[request.tag[0]])[0][request]


def require_same(request: ViewRequest, views: Views, expected: Views) -> None:
    assert len(views) == (request.views.stop - request.views.start) * len(request.positions)
    for key, value in views.items():
        assert value == expected[key], f"view {key[0]} of position {key[1]}"


def any_requests(plan: ViewPlan, seed: int) -> list[ViewRequest]:
    """Views alone, batches of one view, samples decoded once for several, and all that the training loader asks for,
    partners from outside its subset included."""
    rng = np.random.RandomState(seed)
    alone = [ViewRequest(ViewSpan.of(view), np.array([position])) for view in range(VIEWS) for position in range(ROWS)]
    batches = [ViewRequest(ViewSpan.of(view), rng.permutation(ROWS)[:5]) for view in range(VIEWS)]
    spans = [ViewRequest(ViewSpan(first, VIEWS), rng.permutation(ROWS)[:3]) for first in range(VIEWS - 1)]
    batch_order = BatchOrder(np.array([0, 2, 3, 7, 8]), ROWS, plan, tuple(range(VIEWS)), 2, 1, ROWS, ROWS)
    trained = [
        ViewRequest(ViewSpan.of(batch.view), with_partners(plan, batch.positions, batch.view, ROWS))
        for epoch in range(VIEWS)
        for batch in batch_order.batches(epoch)
    ]
    some = [alone[number] for number in rng.permutation(len(alone))[:14]]
    return [*some, *batches, *spans, *trained]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_view_depends_on_plan_index_and_view_alone(workers: int, subtests: pytest.Subtests) -> None:
    """Every transform, over PIL images and tensors, and every mixing: the same whoever asks, after whatever else."""
    requests = [
        replace(request, tag=(number,))
        for number, case in enumerate(CASES)
        for request in any_requests(reference(*case)[0].plan, number)
    ]
    shuffled = [requests[place] for place in np.random.RandomState(0).permutation(len(requests))]
    torch.manual_seed(workers)  # what the process drew before is not a part of a view
    answers = draw_requests(Together(), shuffled, workers)  # type: ignore[arg-type]
    seen = [described(drawn) for drawn in answers]
    for number, (name, kind, mix) in enumerate(CASES):
        with subtests.test(transform=name, kind=kind, mix=mix):
            for request, views in zip(shuffled, seen, strict=True):
                if request.tag == (number,):
                    require_same(request, views, reference(name, kind, mix)[1])


def test_views_differ_from_one_another(subtests: pytest.Subtests) -> None:
    for name, kind, mix in CASES:
        with subtests.test(transform=name, kind=kind, mix=mix):
            _, expected = reference(name, kind, mix)
            assert len({value[0] for value in expected.values()}) > 0.5 * len(expected)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    mix=st.sampled_from(["none", "mixup", "cutmix"]),
    first=st.integers(0, VIEWS - 1),
    count=st.integers(1, VIEWS),
    positions=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS, unique=True),
)
def test_any_request_gives_the_same_views(mix: Mix, first: int, count: int, positions: list[int]) -> None:
    dataset, expected = reference("RandomResizedCrop", "tensor", mix)
    request = ViewRequest(ViewSpan(first, min(first + count, VIEWS)), np.array(positions))
    require_same(request, described(dataset[request]), expected)


def mixed_rows(drawn: Drawn, v: int, mix: Mix) -> Tensor:
    """A whole group's views as the teacher gets them."""
    prepared = Preparation(*default_normalisation(3), "cpu")(drawn.images[v])
    first = int(drawn.request.positions[0])
    return mix_images(prepared, drawn.mixing[v], drawn.mixing[v].partners - first, mix)


def test_train_sees_what_extract_showed_the_teacher(subtests: pytest.Subtests) -> None:
    for kind, mix, subset in product(get_args(Kind), get_args(Mix), [False, True]):
        with subtests.test(kind=kind, mix=mix, subset=subset):
            require_shown(kind, mix, subset)


def require_shown(kind: Kind, mix: Mix, subset: bool) -> None:
    """Every batch of a training loader holds the teacher's own input, row by row."""
    rows, views = 77, 2  # a whole mixing group and a ragged one of 13, in which one row has no partner
    transform = v2.Compose([v2.RandomResizedCrop(13, antialias=True), v2.RandomHorizontalFlip()])
    data, plan = picture_data(rows, kind), plan_of("test", mix)
    order = np.random.RandomState(0).permutation(rows)
    dataset = ViewDataset(data.samples, order, plan, transform)
    groups = [np.arange(64), np.arange(64, rows)]
    shown = [dataset[ViewRequest(ViewSpan(0, views), group)] for group in groups]
    teacher_input = [torch.cat([mixed_rows(drawn, v, mix) for drawn in shown]) for v in range(views)]
    positions = np.sort(np.random.RandomState(1).permutation(rows)[:31]) if subset else np.arange(rows)
    loader = Loader(
        data,
        batch_size=10,
        epochs=3,
        positions=positions,
        views=ViewSpan(0, 2),
        feed=FeedOptions(plan=plan, transform=transform, order=order),
    )
    for batch in batches_left(loader):
        assert batch.view == (0, 1, 0)[batch.epoch]
        assert torch.equal(batch.images, teacher_input[batch.view][batch.positions])
        mixing = [drawn.mixing[batch.view] for drawn in shown]
        lam = np.concatenate([each.lam for each in mixing])[batch.positions]
        assert (batch.lam is None) == (mix == "none")
        if batch.lam is not None:
            assert torch.equal(batch.lam, torch.from_numpy(lam).float())


def drawn_numbers() -> list[int]:
    """31 bits of each of the next four words of torch, then of random, then of numpy."""
    words = torch.randint(2**31, (4,)).tolist() + [random.getrandbits(32) for _ in range(4)]
    return [int(word) % 2**31 for word in [*words, *np.random.randint(0, 2**32, 4, dtype=np.uint32)]]


def test_the_three_generators_draw_different_numbers() -> None:
    with own_generators():
        torch.manual_seed(5)
        np.random.seed(5)
        seen = drawn_numbers()
        assert set(seen[:4]) & set(seen[8:])  # under one seed they are one stream: why each has a word of its own
        words = []
        for index, view in [(0, 0), (0, 1), (1, 0)]:
            seed_generators(9, index, view)
            words += drawn_numbers()
        seed_generators(9, 0, 0)
        assert drawn_numbers() == words[:12]
    assert len(set(words)) == len(words) == 36


@pytest.mark.parametrize("name", ["random", "numpy", "ColorJitter"])
def test_the_process_keeps_its_own_generator_states(name: str) -> None:
    dataset, _ = reference(name, "tensor", "none")
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    expected = [drawn_numbers() for _ in range(2)]
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    before = drawn_numbers()
    list(draw_requests(dataset, [ViewRequest(ViewSpan(0, 2), np.arange(3))] * 2, 0))
    assert [before, drawn_numbers()] == expected


def test_states_come_back_after_an_error() -> None:
    def broken(image: Any) -> Any:
        raise ValueError("no picture")

    torch.manual_seed(4)
    expected = torch.get_rng_state()
    with pytest.raises(SampleError, match="ValueError: no picture") as caught:
        view_dataset(pictures(3), broken)[ViewRequest(ViewSpan(0, 1), np.arange(2))]
    assert isinstance(caught.value.__cause__, ValueError)
    assert torch.equal(torch.get_rng_state(), expected)


def test_a_transform_in_place_reaches_neither_the_next_view_nor_the_sample() -> None:
    samples = pictures(3)
    untouched = [image.clone() for image in samples.images]
    dataset = view_dataset(samples, v2.RandomErasing(p=1.0, value=0, inplace=True))
    drawn = dataset[ViewRequest(ViewSpan(0, 6), np.arange(3))]
    for image, before in zip(samples.images, untouched, strict=True):
        assert torch.equal(image, before)
    erased = (drawn.images == 0).all(dim=2).flatten(2).sum(dim=2)
    for earlier, later in pairwise(erased.tolist()):
        assert earlier != later  # one box each, not the sum of those before
    assert int(erased.max()) <= 0.34 * 17 * 15


def test_a_view_does_not_depend_on_the_process_s_threads() -> None:
    """A worker has one thread, the process as many as cores, and a mean over threads is summed in another order."""
    images = tuple(picture(index, 3, 224, 224) for index in range(6))
    transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.ColorJitter(0.5, 0.5, 0.5, 0.2)])
    dataset = view_dataset(Pictures(images, (0,) * 6), transform)
    before = torch.get_num_threads()
    seen = []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            seen.append(described(dataset[ViewRequest(ViewSpan(0, 2), np.arange(6))]))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert seen[0] == seen[1]


def test_a_view_that_is_drawn_keeps_its_values_where_the_transform_uses_its_memory_again() -> None:
    buffer = torch.zeros(3, 4, 4, dtype=torch.uint8)

    def shared(image: Any) -> Any:
        return buffer.copy_(image)

    images = [torch.full((3, 4, 4), value, dtype=torch.uint8) for value in (1, 2)]
    views = [draw_view(shared, image, 0, index, 0) for index, image in enumerate(images)]
    assert all(torch.equal(view, image) for view, image in zip(views, images, strict=True))


@pytest.mark.parametrize("sample", ["requires grad", "bfloat16"])
@pytest.mark.parametrize("by", ["data set", "transform"])
def test_tensors_that_numpy_does_not_read_are_taken(sample: str, by: str) -> None:
    values = torch.arange(48.0).reshape(3, 4, 4)
    other = values.clone().requires_grad_() if sample == "requires grad" else values.bfloat16()
    samples = [(other if by == "data set" else values, 0)] * 2
    dataset = ViewDataset(
        samples,  # type: ignore[arg-type]
        np.arange(2),
        plan_of("none"),
        (lambda image: image) if by == "data set" else (lambda image: other),
        ("values",),
    )
    drawn = dataset[ViewRequest(ViewSpan(0, 2), np.arange(2))]
    assert drawn.images.dtype == torch.float32
    assert torch.equal(drawn.images[1, 1], values)
    assert len(set(drawn.contents["values"].tolist())) == 1
