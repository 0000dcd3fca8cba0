"""A batch holds all that an objective is given besides the student's outputs."""

from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from kdcache.base.devices import to_device
from kdcache.base.tap_names import FEATURES
from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import SoftLabels


@dataclass(frozen=True)
class Negatives:
    """Rows of the stores drawn for a batch with replacement, the same for all of its rows and on all processes. An
    objective takes the first of them, as many as it asked for.

    positions, y: [M] i64, y is -1 for a row without a label. features: [M, D] of each store, as those of a batch.
    """

    positions: Tensor
    y: Tensor
    features: tuple[Tensor, ...]

    def first(self, count: int) -> "Negatives":
        """The first rows, at most `count`."""
        features = tuple(values[:count] for values in self.features)
        return Negatives(self.positions[:count], self.y[:count], features)

    def to(self, device: str) -> "Negatives":
        """The rows on a device; `positions` stay where they are."""
        features = tuple(to_device(values, device) for values in self.features)
        return replace(self, y=to_device(self.y, device), features=features)


@dataclass(frozen=True, repr=False)
class Batch:
    """A batch holds images, hard labels and soft labels of B rows, on one device.

    Of texts a batch holds B of S tokens: images are their ids [B, S] i64, and y, positions and the soft labels have [B,
    S] in place of B. Objectives take any leading axes in place of B, where lam stays [B].

    For frameworks a batch is a mapping too: `images` (of texts `input_ids` and `mask`), `labels` (y) and, with stores,
    `soft_labels`: those of the one store, or the tuple of several.

    Attributes:
        images: [B, ch, H, W] f32, normalised and mixed.
        y: [B] i64 hard labels, -1 for none.
        y2: [B] i64 under mixing the partner's hard labels, else None.
        lam: [B] f32 under mixing the weight of y, else None.
        positions: [B] i64, on the CPU.
        view: The view of all rows.
        epoch: The number of the epoch, from 0.
        step: The number of the batch in its epoch, from 0.
        teachers: The soft labels of each store.
        features: [B, D] pooled teacher features of each store, or empty.
        steps: The number of batches in this epoch.
        epochs: The number of epochs in the whole training.
        shares: The number of rows of each process, where several share the batch; B may be 0.
        taps: [B, ...] f16 of each layer that was asked for, by name, of each store, or empty.
        negatives: Rows of the stores for objectives that contrast, or None.
        weight: [B] f32 by which rows count in a mean over rows, 0 for a row that does not; None: all count alike.
        mask: [B, S] of texts, true where a token counts; None: all rows do.

    Examples:
        >>> loader = Loader(data, [store], batch_size=64, epochs=1)
        >>> next(iter(loader))
        Batch(60 rows, images 1x8x8 float32 cpu, view 0, epoch 0, step 0 of 5, 1 teacher)
    """

    images: Tensor
    y: Tensor
    y2: Tensor | None
    lam: Tensor | None
    positions: Tensor
    view: int
    epoch: int
    step: int
    teachers: tuple[SoftLabels, ...] = ()
    features: tuple[Tensor, ...] = ()
    steps: int = 1
    epochs: int = 1
    shares: tuple[int, ...] = ()
    taps: tuple[Mapping[str, Tensor], ...] = ()
    negatives: Negatives | None = None
    weight: Tensor | None = None
    mask: Tensor | None = None

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        dtype = str(self.images.dtype).removeprefix("torch.")
        parts = [
            f"{len(self.y)} {'rows' if self.mask is None else 'texts'}",
            f"{'images' if self.mask is None else 'tokens'} {shape} {dtype} {self.images.device}",
            f"view {self.view}",
            f"epoch {self.epoch}",
            f"step {self.step} of {self.steps}",
            f"{len(self.teachers)} teacher{'' if len(self.teachers) == 1 else 's'}",
            *(["mixed"] if self.lam is not None else []),
            *(["weighed"] if self.weight is not None else []),
        ]
        return f"Batch({', '.join(parts)})"

    def __getitem__(self, key: str) -> Any:
        """The value of a mapping key. Raises KeyError, naming the keys, for another."""
        items = self._items()
        if key not in items:
            raise KeyError(f"{key!r} is no key of a batch; it has {', '.join(items)}")
        return items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items())

    def keys(self) -> KeysView[str]:
        """The mapping keys, see the class."""
        return self._items().keys()

    def _items(self) -> dict[str, Any]:
        items: dict[str, Any] = {"images": self.images, "labels": self.y}
        if self.mask is not None:
            items = {"input_ids": self.images, "labels": self.y, "mask": self.mask}
        if self.teachers:
            items["soft_labels"] = self.teachers[0] if len(self.teachers) == 1 else self.teachers
        return items

    def to(self, device: str) -> "Batch":
        """The batch with its tensors on a device; `positions` stay where they are, on the CPU.

        Examples:
            >>> batch.to("cpu").images.device
            device(type='cpu')
        """
        return replace(
            self,
            images=to_device(self.images, device),
            y=to_device(self.y, device),
            y2=None if self.y2 is None else to_device(self.y2, device),
            lam=None if self.lam is None else to_device(self.lam, device),
            teachers=tuple(soft_labels.to(device) for soft_labels in self.teachers),
            features=tuple(to_device(values, device) for values in self.features),
            taps=tuple({name: to_device(tap, device) for name, tap in taps.items()} for taps in self.taps),
            negatives=None if self.negatives is None else self.negatives.to(device),
            weight=None if self.weight is None else to_device(self.weight, device),
            mask=None if self.mask is None else to_device(self.mask, device),
        )

    def tap(self, number: int, name: str) -> Tensor:
        """The tap [B, ...] of a store by its number and the tap's name; `features` is one. Raises InvalidInputError for
        one that the batch has not.

        Examples:
            >>> batch.tap(0, "layer4").shape
            torch.Size([2, 4, 3, 3])
        """
        taps = {FEATURES: self.features[number]} if number < len(self.features) else {}
        taps |= self.taps[number] if number < len(self.taps) else {}
        if name not in taps:
            raise InvalidInputError(
                f"the teacher's {name} is needed of store {number}, and the batch has {', '.join(taps) or 'no taps'}; "
                "make the loader with labels=LabelOptions(features=True, taps=...)"
            )
        return taps[name]

    @property
    def time(self) -> float:
        """The time in epochs: 2.5 is the middle of the third epoch."""
        return self.epoch + self.step / self.steps

    @property
    def progress(self) -> float:
        """The share of the training that is done, 0 to 1."""
        return self.time / self.epochs
