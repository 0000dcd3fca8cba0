"""The first answers of a student: it is asked for some views of each split before its run's folder is claimed."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.networks.answers import answered, require_no_probabilities, unit_sums
from kdcache.networks.first_views import first_views
from kdcache.networks.precision import autocast
from kdcache.training.batch_stream import BatchStream
from kdcache.training.generators import Generators
from kdcache.views.data import Data

ASKED = 8  # views of a split about which the student is asked
ROWS = 64  # of a split without a store that are drawn: their sizes must agree. A store's views agreed when it was made


def require_answers(
    network: nn.Module, data: Data, loaders: Sequence[BatchStream], precision: str, subclasses: int = 1
) -> int:
    """Check with some views of each split that the student takes views, answers each with all classes, and can learn.

    `loaders`: that of training, and that of validation where there is one. `subclasses`: logits that stand for each
    class. Returns how many classes it answers. Raises InvalidInputError. The generators are left as they were.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        count = sum(1 for _ in network.parameters())
        raise InvalidInputError(
            f"the student has no parameter that learns ({count} parameters, none requires a gradient): check --student"
        )
    training = loaders[0]
    with Generators().turn():
        images = _equal_views(training, "--transform")
        logits = _answer(network, images, training, precision, learns=True)
        count = logits.shape[-1]
        if not logits.requires_grad:
            raise InvalidInputError(
                "the student's answer depends on no parameter that learns: its forward detaches it, or works under "
                "no_grad; check --student"
            )
        for loader in loaders[1:]:
            views = _equal_views(loader, "--val-transform", images.shape[-2:])
            try:
                val_count = _answer(network, views, loader, precision).shape[-1]
            except InvalidInputError as error:
                advice = "the training's views are taken, so check --val-transform"
                raise InvalidInputError(f"validation: {error}; {advice}") from error
            if val_count != count:
                raise InvalidInputError(f"the student answers {count} classes in training, {val_count} in validation")
    _require_classes(count, data, loaders, subclasses)
    return count // subclasses


def mode_notes(network: nn.Module) -> list[str]:
    """Notes on modules that do not follow eval() and train(), which change what is validated or learned."""
    notes = []
    mode = network.training
    if names := [name or "the network" for name, module in network.eval().named_modules() if module.training]:
        notes.append(f"{names[0]} ({len(names)} modules) stays in train mode after eval(), in validation too")
    if not network.train().training:
        notes.append("the student stays in eval mode after train(): dropout is off, and norms do not learn statistics")
    network.train(mode)
    return notes


def _equal_views(loader: BatchStream, flag: str, size: Sequence[int] = ()) -> Tensor:
    """Some views of a split as one tensor. Raises InvalidInputError, naming two samples, where sizes differ among those
    that are drawn. `size`: of the training's views, for the message."""
    views = loader.spread_views(ASKED if loader.stores else ROWS)
    (first, view), *others = views.items()
    for name, other in others:
        if other.shape != view.shape:
            shapes = f"{list(view.shape[1:])} of {first} and {list(other.shape[1:])} of {name}"
            split = "validation views" if flag == "--val-transform" else "views"
            arguments = f"{flag} center {flag}-set size={max(size or view.shape[-2:])}"
            raise InvalidInputError(
                f"{split} differ in shape: {shapes} [channels, height, width]; give a {flag} that ends in one shape, "
                f"such as {arguments}" + (f": training views are {'x'.join(map(str, size))}" if size else "")
            )
    return torch.cat([view, *(other for _, other in others[: ASKED - 1])])


def _answer(network: nn.Module, images: Tensor, loader: BatchStream, precision: str, *, learns: bool = False) -> Tensor:
    """Logits [B, C] of the network in eval mode. Raises InvalidInputError where it does not answer so."""
    with (
        first_views(network, images, "student", precision=precision),
        torch.set_grad_enabled(learns),
        autocast(precision, loader.device),
    ):
        logits = answered(network.eval()(images.clone()), images, "student")
    require_no_probabilities(
        unit_sums(logits.detach().flatten(0, -2)), "student", "let it answer the logits before the softmax"
    )
    return logits


def _require_classes(count: int, data: Data, loaders: Sequence[BatchStream], subclasses: int) -> None:
    suffix = f" with {subclasses} subclasses each" if subclasses > 1 else ""
    answer = f"the student answers {count} {'logits' if suffix else 'classes'}"
    for store in (store for loader in loaders for store in loader.stores):
        if count != (wanted := (classes := store.identity.teacher.label_classes) * subclasses):
            raise InvalidInputError(
                f"{answer}, {store.folder.root} has {classes}{' classes' if suffix else ''}{suffix}; "
                f"set --student-set num_classes={wanted}"
            )
    if count % subclasses or count < 2 * subclasses:
        raise InvalidInputError(
            f"{answer}, which are not those of two classes or more{suffix}; set --student-set "
            f"num_classes={max(data.classes, 2) * subclasses}, or another --subclasses"
        )
    for split in (data, *(loader.data for loader in loaders)):
        if (largest := int(split.labels.max(initial=-1))) >= count // subclasses:
            raise InvalidInputError(
                f"the data set ({split.name}) has label {largest}, {answer}{' of classes' if suffix else ''}{suffix}; "
                f"set --student-set num_classes={(largest + 1) * subclasses}"
            )
