"""A run's network as a comparison asks it: logits, and in the same forward what further measures need."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdcache.base.tap_names import FEATURES
from kdcache.errors import InvalidInputError
from kdcache.labels.reduction import class_logits
from kdcache.measures.attention import AttentionTally
from kdcache.measures.cka import FeatureTally
from kdcache.measures.cost import cost
from kdcache.measures.facts import Value
from kdcache.measures.sharpness import FACTS as SHARPNESS
from kdcache.measures.sharpness import sharpness
from kdcache.networks.answers import answered, logits_of
from kdcache.networks.build import build_network
from kdcache.networks.heads import find_head
from kdcache.networks.layers import last_stage, layer_shapes
from kdcache.networks.precision import autocast
from kdcache.networks.taps import Tapped
from kdcache.networks.weights import load_weights
from kdcache.objectives.batch import Batch
from kdcache.pipelines.compare.members import RunPlace
from kdcache.pipelines.compare.settings import FurtherMeasure
from kdcache.store.lineage import read_subclasses
from kdcache.store.store import Store

SHARPNESS_ROWS = 512


def tap_of(store: Store, also: Sequence[FurtherMeasure]) -> tuple[str, ...]:
    """The taps of a teacher's store that further measures are of. Raises InvalidInputError, with extract's flag, where
    the store does not keep them."""
    encoding, place = store.identity.encoding, store.folder.root
    names = []
    if "cka" in also:
        if not encoding.features:
            raise InvalidInputError(f"cka compares features, and {place} keeps none; extract it with --keep features")
        names.append(FEATURES)
    if "attention_iou" in also:
        width = store.head()["weight"].shape[1] if encoding.head else 0
        maps = [tap.name for tap in encoding.taps if len(tap.shape) == 3 and tap.shape[0] == width]
        if not maps:
            raise InvalidInputError(
                f"attention_iou compares the last map under the classifier, and {place} does not keep both; extract it "
                "with --keep head,tap:LAYER, the last stage that kdcache taps lists"
            )
        names.append(maps[-1])
    return tuple(names)


class AskedNetwork:
    """A run's network in eval mode on a device, and the sums of further measures."""

    def __init__(self, run: RunPlace, store: Store, also: Sequence[FurtherMeasure], device: str) -> None:
        self.run, self.also, self.device = run, also, device
        self.subclasses = read_subclasses(run.network.weights)
        classes = store.identity.teacher.label_classes * self.subclasses
        network = build_network(run.network.teacher, run.network.teacher_set, classes, "student")
        load_weights(network, run.network.weights, "student")
        self.network = network.to(device).eval()
        self.taps, self.head = tap_of(store, also), store.head()["weight"] if "attention_iou" in also else None
        self._tapped: Tapped | None = None
        self._example: Tensor | None = None
        self._map = ""
        self._features, self._attention = FeatureTally(), AttentionTally((1, 1))
        self._rows: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def answer(self, batch: Batch) -> Tensor:
        """Logits [B, C] of a batch by class, counted for further measures."""
        if self._example is None:
            self._begin(batch.images)
        images = batch.images.clone()  # a network may work in place on its input
        with autocast(self.run.record.get("precision", "float32"), self.device):
            if self._tapped is None:
                logits = answered(self.network(images), images, f"run {self.run.folder}")
            else:
                logits, taps = self._tapped(images)
                self._see(taps, batch)
        if "sharpness" in self.also:
            self._keep(batch)
        return torch.as_tensor(class_logits(logits.float(), self.subclasses))

    def _begin(self, images: Tensor) -> None:
        self._example = images[:1].clone()
        names = [FEATURES] if "cka" in self.also else []
        if "attention_iou" in self.also:
            self._map = last_stage(self.network, layer_shapes(self.network, images[:2].clone()))
            names.append(self._map)
            self._attention = AttentionTally((int(images.shape[-2]), int(images.shape[-1])))
        if names:
            self._tapped = Tapped(self.network, names, f"run {self.run.folder}")

    def _see(self, taps: dict[str, Tensor], batch: Batch) -> None:
        if "cka" in self.also:
            self._features.update(taps[FEATURES].float(), batch.tap(0, FEATURES).float())
        if "attention_iou" in self.also:
            head = find_head(self.network)
            if head is None:
                raise InvalidInputError(f"run {self.run.folder} has no classifier: it has no attention to compare")
            own, theirs = taps[self._map].float(), batch.tap(0, self.taps[-1]).float()
            self._attention.update((own, head.weight), (theirs, torch.as_tensor(self.head)))

    def _keep(self, batch: Batch) -> None:
        wanted = SHARPNESS_ROWS - sum(len(labels) for _, labels in self._rows)
        labelled = (batch.y >= 0).nonzero()[:wanted, 0]
        if len(labelled):
            self._rows.append((batch.images[labelled].clone(), batch.y[labelled]))

    def result(self) -> dict[str, Value]:
        """Its size, and the further measures that were asked for."""
        values: dict[str, Value] = {}
        if self._example is not None:
            found = cost(self.network, self._example)
            values["parameters"] = Value(value=found.parameters, unit="numbers", rows=1)
            values["macs"] = Value(value=found.macs, unit="multiply-accumulates a row", rows=1)
        if "cka" in self.also:
            values |= self._features.result()
        if "attention_iou" in self.also:
            values |= self._attention.result()
        if "sharpness" in self.also:
            values |= _sharpness(_ByClass(self.network, self.subclasses), self._rows)
        return values


class _ByClass(nn.Module):
    """A network that answers its classes, where it has subclasses."""

    def __init__(self, network: nn.Module, subclasses: int) -> None:
        super().__init__()
        self.network, self.subclasses = network, subclasses

    def forward(self, images: Tensor) -> Any:
        answer = logits_of(self.network(images), "student")
        return answer if self.subclasses == 1 else class_logits(answer, self.subclasses)


def _sharpness(network: nn.Module, rows: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Value]:
    found = sharpness(network, rows)
    pairs = {"sharpness": found.largest, "hessian_trace": found.trace}
    return {
        name: Value(value=value, unit=SHARPNESS[name].unit, rows=found.rows, exactness="estimate")
        for name, value in pairs.items()
    }
