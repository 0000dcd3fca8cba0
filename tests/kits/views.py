"""Small pictures, data sets, a trained teacher and stores extracted from it, for the tests of the torch side.

Shape letters: V views, N positions, C classes, [ch, H, W] of one view.
"""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from kdcache.base.arrays import IntArray
from kdcache.base.view_span import ViewSpan
from kdcache.labels.encoding import Encoding
from kdcache.labels.full import FullEncoding
from kdcache.labels.topk import TopKEncoding
from kdcache.networks.extract_block import BlockExtractor
from kdcache.networks.preparation import Preparation, default_normalisation
from kdcache.networks.small import convnet
from kdcache.networks.teacher import Teacher
from kdcache.store.manifest import Identity, Provenance
from kdcache.store.plan import TransformSpec, ViewPlan
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.store.whole_arrays import make_order
from kdcache.views.data import Data, describe_samples
from kdcache.views.draw import ViewDataset
from kdcache.views.sources import open_data
from kdcache.views.transforms import Transform, build_transform
from kdcache.views.workers import draw_requests

torch.set_num_threads(1)  # networks this small spend their time waiting for threads, the more so on shared cores

Mix = Literal["none", "mixup", "cutmix"]
Kind = Literal["pil", "tensor"]
TOPK, FULL = TopKEncoding(k=3), FullEncoding()


def _noisy(image: Any) -> Any:
    """Adds noise from `random` alone: a draw that torch's seed does not reach."""
    level = random.randrange(256)
    return v2.functional.to_dtype(v2.functional.to_image(image), torch.uint8) ^ level


def _numpy_noisy(image: Any) -> Any:
    """Adds noise from `numpy.random` alone."""
    tensor = v2.functional.to_image(image)
    return tensor ^ torch.from_numpy(np.random.randint(0, 256, tuple(tensor.shape), dtype=np.uint8))


class OwnGenerator:
    """What must be refused: a transform that draws from a generator of its own."""

    def __init__(self) -> None:
        self.generator = torch.Generator()

    def __call__(self, image: Any) -> Any:
        return v2.functional.to_image(image) ^ torch.randint(256, (1,), generator=self.generator, dtype=torch.uint8)


class Stateful:
    """What must be refused: a transform that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Any) -> Any:
        self.calls += 1
        return v2.functional.to_image(image) ^ (self.calls % 251)


def _jitter() -> nn.Module:
    return v2.ColorJitter(0.4, 0.4, 0.4, 0.1)


TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "RandAugment": v2.RandAugment,
    "TrivialAugmentWide": v2.TrivialAugmentWide,
    "AutoAugment": v2.AutoAugment,
    "AugMix": v2.AugMix,
    "RandomApply": lambda: v2.RandomApply([_jitter()], p=0.5),
    "RandomErasing": lambda: v2.RandomErasing(p=0.9, value=7),
    "RandomErasing inplace": lambda: v2.Compose([v2.ToImage(), v2.RandomErasing(p=0.9, value=7, inplace=True)]),
    "ColorJitter": _jitter,
    "RandomResizedCrop": lambda: v2.RandomResizedCrop(13, antialias=True),
    "random": lambda: _noisy,
    "numpy": lambda: _numpy_noisy,
}


def picture(index: int, channels: int = 3, height: int = 17, width: int = 15) -> Tensor:
    """A smooth u8 picture [ch, H, W] with some grain, another for every index."""
    rng = np.random.RandomState(index)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, channels, 3, 3)).astype(np.float32))
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)[0]
    grain = torch.from_numpy(rng.uniform(-8, 8, (channels, height, width)).astype(np.float32))
    return (smooth + grain).clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Pictures:
    """A data set of pictures in memory, as PIL images or as tensors; `labels` [N]."""

    images: tuple[Any, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index], self.labels[index]


def pictures(rows: int, kind: Kind = "tensor", *, channels: int = 3) -> Pictures:
    """`rows` pictures of 4 classes."""
    tensors = [picture(index, channels) for index in range(rows)]
    images = [v2.functional.to_pil_image(image) for image in tensors] if kind == "pil" else tensors
    return Pictures(tuple(images), tuple(index % 4 for index in range(rows)))


def picture_data(rows: int, kind: Kind = "tensor", *, channels: int = 3) -> Data:
    """The same as a data set with an identity."""
    return describe_samples(pictures(rows, kind, channels=channels), "pictures")


def digits(limit: int = 200, split: str = "train") -> Data:
    """The first samples of scikit-learn's digits."""
    return open_data("digits", {"limit": limit, "split": split})


def plan_of(name: str = "light", mix: Mix = "none", *, seed: int = 5, **arguments: Any) -> ViewPlan:
    """A view plan of a transform by name."""
    return ViewPlan(transform=TransformSpec(name=name, arguments=arguments), mix=mix, seed=seed)


def view_dataset(samples: Any, transform: Transform, mix: Mix = "none", *, seed: int = 5) -> ViewDataset:
    """A data set of views, in a shuffled order."""
    order = np.random.RandomState(seed).permutation(len(samples)).astype(np.int64)
    return ViewDataset(samples, order, plan_of("test", mix, seed=seed), transform)


@cache
def _trained_state() -> nn.Sequential:
    data = open_data("digits", {})
    images = torch.stack([data.samples[index][0] for index in range(len(data))])
    labels = torch.from_numpy(data.labels.astype(np.int64))
    prepared = Preparation(*default_normalisation(1), "cpu")(images)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = convnet(width=8)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        for _ in range(3):
            for rows in torch.randperm(len(data)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(prepared[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return network.eval()


def trained_network() -> nn.Sequential:
    """A fresh copy of a small convnet that was trained on digits once a session (about 95 % right)."""
    return copy.deepcopy(_trained_state())


def teacher_of(network: nn.Module | None = None, *, channels: int = 1, **options: Any) -> Teacher:
    """A teacher of one-channel digits, by default the trained one."""
    preparation = options.pop("preparation", Preparation(*default_normalisation(channels), "cpu"))
    return Teacher(trained_network() if network is None else network, preparation=preparation, **options)


def random_teacher(channels: int = 1, classes: int = 10, seed: int = 1, scale: float = 30.0, **options: Any) -> Teacher:
    """An untrained teacher whose logits are spread out by `scale`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = convnet(width=4, channels=channels, num_classes=classes)
    with torch.no_grad():
        network[-1].weight *= scale
    return teacher_of(network, channels=channels, **options)


@dataclass(frozen=True)
class Setting:
    """All that extracting into a store needs."""

    data: Data
    teacher: Teacher
    identity: Identity
    order: IntArray
    dataset: ViewDataset

    @property
    def labels(self) -> IntArray:
        """[N] hard labels by position."""
        return self.data.labels[self.order].astype(np.int64)


def make_setting(
    data: Data,
    teacher: Teacher,
    plan: ViewPlan,
    encoding: Encoding = TOPK,
    *,
    transform: Transform | None = None,
    order_seed: int = 3,
) -> Setting:
    """Order and identity for a data set, a teacher and a view plan."""
    order, order_identity = make_order(len(data), "shuffled", order_seed)
    classes = teacher.answers.classes or int(teacher.network[-1].out_features)  # type: ignore[index, union-attr]
    identity = Identity(
        dataset=data.identity(),
        order=order_identity,
        views=plan,
        teacher=teacher.identity("test", {}, classes),
        encoding=encoding,
    )
    transform = transform or build_transform(plan.transform.name, plan.transform.arguments)[0]
    dataset = ViewDataset(data.samples, order, plan, transform, encoding.kinds_of_contents)
    return Setting(data, teacher, identity, order, dataset)


def extractor_of(
    setting: Setting, segment: Segment, *, batch_rows: int = 128, view_bytes: int = 64, **changes: Any
) -> BlockExtractor:
    """A block extractor; samples are named by their index."""
    extractor = BlockExtractor(
        layout=segment.layout,
        identity=setting.identity,
        teacher=setting.teacher,
        order=setting.order,
        labels=setting.labels,
        sample_name=lambda position: f"sample {setting.order[position]}",
        batch_rows=batch_rows,
        view_bytes=view_bytes,
    )
    return replace(extractor, **changes)


def create_store(path: Path, setting: Setting, *, views: int = 2, start: int = 0) -> tuple[Store, Segment]:
    """An empty store with one segment."""
    store = Store.create(
        path, setting.identity, order=setting.order, labels=setting.labels, provenance=Provenance(device="test")
    )
    return store, store.add_segment(ViewSpan(start, start + views))


def extracted(
    extractor: BlockExtractor, dataset: ViewDataset
) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]], Any]]:
    """(block, arrays, counts) of every block, drawn in this process."""
    for block in range(extractor.layout.blocks):
        drawn = draw_requests(dataset, extractor.requests(block), 0)
        yield block, *extractor.encode(extractor.ask(block, drawn))


def extract_store(path: Path, setting: Setting, *, views: int = 2, **options: Any) -> Store:
    """A sealed store of views 0..views, opened for reading."""
    store, segment = create_store(path, setting, views=views)
    for block, arrays, counts in extracted(extractor_of(setting, segment, **options), setting.dataset):
        assert segment.commit(block, arrays=arrays, counts=counts, provenance=Provenance(device="test")) is not None
    store.seal()
    return Store.open(path)


class Altered:
    """The samples of a data set, some of them changed behind its identity's back."""

    def __init__(self, data: Data, change: Callable[[Tensor, int], Tensor]) -> None:
        self.data, self.change = data, change

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self.data.samples[index]
        return self.change(image.clone(), index), label

    def content(self, index: int) -> Any:  # of the sample that was not changed: it is decoded otherwise
        return self.data.samples.content(index)  # type: ignore[attr-defined]


def altered(data: Data, change: Callable[[Tensor, int], Tensor]) -> Data:
    return replace(data, samples=Altered(data, change))


def drifted(image: Tensor, index: int) -> Tensor:
    return (image.int() + torch.tensor([-2, 2]).repeat(32).reshape(1, 8, 8)).clamp(0, 255).to(torch.uint8)


def negative(image: Tensor, index: int) -> Tensor:
    return 255 - image
