"""The sizes of what student and stores give, for objectives that see taps: the student is asked about one view."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdcache.base.tap_names import FEATURES
from kdcache.networks.first_views import first_views
from kdcache.networks.layers import last_stage, layer_shapes
from kdcache.objectives.tap_pairs import Head, Sizes, TeacherSizes
from kdcache.store.store import Store
from kdcache.training.generators import Generators


def sizes_of(
    network: nn.Module,
    images: Tensor,
    stores: Sequence[Store],
    *,
    weights: tuple[float, ...] = (),
    subclasses: int = 1,
) -> Sizes:
    """The sizes of a student, asked about prepared images [B, ch, H, W], B at least 2, and of the stores that it learns
    from, which count by `weights`; it answers so many `subclasses` for each class. The generators are left as they
    were. Raises InvalidInputError where the student takes no such views."""
    with Generators().turn(), first_views(network, images, "student", precision="float32"):
        shapes = layer_shapes(network, images)
    return Sizes(
        student=shapes,
        last=last_stage(network, shapes),
        teachers=tuple(map(_of_store, stores)),
        weights=weights,
        classes=stores[0].identity.teacher.label_classes * subclasses if stores else 0,
        rows=stores[0].rows if stores else 0,
    )


def _of_store(store: Store) -> TeacherSizes:
    encoding = store.identity.encoding
    taps: dict[str, tuple[int, ...]] = {FEATURES: (encoding.features,)} if encoding.features else {}
    head = None
    if encoding.head:
        arrays = store.head()
        head = Head(torch.from_numpy(arrays["weight"].copy()), torch.from_numpy(arrays["bias"].copy()))
    return TeacherSizes(
        name=str(store.folder.root),
        taps=taps | {tap.name: tap.shape for tap in encoding.taps},
        head=head,
        masked=store.identity.teacher.masked_classes,
    )
