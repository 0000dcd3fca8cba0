"""Comparable are stores of the same rows and runs of the same classes; and a reader is told what else must be known."""

from collections.abc import Iterator, Sequence

from kdcache.base.arrays import values_digest
from kdcache.base.records import require_equal
from kdcache.errors import InvalidInputError
from kdcache.pipelines.compare.held_out import HeldOut
from kdcache.pipelines.compare.members import Place, RunPlace, StorePlace
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.store.store import Store
from kdcache.views.chosen_rows import OF_LABELS
from kdcache.views.class_numbers import require_alike
from kdcache.views.data import Data
from kdcache.views.data_parts import ids_digest
from kdcache.views.sources import of_whole, open_data


def require_comparable(place: Place, first: Store, settings: CompareSettings) -> None:
    """Raises InvalidInputError for a run without data to be asked about, for other classes than those of the teacher's
    store `first`, and for a store of other rows."""
    teacher, dataset, root = first.identity.teacher, first.identity.dataset, first.folder.root
    if isinstance(place, RunPlace):
        if not settings.data:
            advice = f"give --data, the data set of {root}"
            raise InvalidInputError(f"{place.place} is a run, which is asked about pictures; {advice}")
        require_alike(dataset.class_names, place.class_names, classes=teacher.label_classes, store=str(root))
        return
    own, name = place.store.identity, place.place
    if (classes := own.teacher.label_classes) != teacher.label_classes:
        raise InvalidInputError(f"{name} has {classes} classes, {root} has {teacher.label_classes}")
    other = own.dataset if own.dataset.class_names else own.dataset.model_copy(update={"labels": dataset.labels})
    advice = "compare stores of one data set"
    require_equal(
        dataset.model_copy(update={"class_names": other.class_names}), other, f"{name} is of other rows than {root}:",
        advice, "dataset.", names=(str(root), name),
    )  # fmt: skip
    require_alike(own.dataset.class_names, dataset.class_names, classes=classes, store=name)
    if not place.store.every_view:
        raise InvalidInputError(f"{name} has no view yet; run kdcache extract")
    if own.plan.mix != "none":
        raise InvalidInputError(f"the views of {name} are mixed by {own.plan.mix}; compare stores of clean views")
    own.encoding.require_log_probs("compare")


def trained_on(runs: Sequence[RunPlace], rows: HeldOut) -> Iterator[str]:
    """A loud word where the rows are those that a run was trained on, or some of them."""
    whole = _whole_data(rows)
    taught = [run for run in runs if _is_trained_on(run, rows, whole)]
    if taught:
        yield (
            f"THE ROWS ARE TRAINING ROWS of {len(taught)} of {len(runs)} runs ({taught[0].place}): these figures tell "
            "how well they fit what they saw, not how they do on other data"
        )


def _whole_data(rows: HeldOut) -> Data | None:
    """The data set of which the held-out rows are all or a part, with its labels changed as theirs; None where none is
    named."""
    settings, data = rows.settings, rows.data
    if data is None:
        return None
    arguments = of_whole(settings.data, settings.data_set, keep=OF_LABELS)
    if arguments == settings.data_set:
        return data
    return open_data(settings.data, arguments, labels="data" if data.is_labelled else "none")


def _is_trained_on(run: RunPlace, rows: HeldOut, whole: Data | None) -> bool:
    """True where the training's rows are the held-out ones, or are the first rows of the whole of their data set."""
    training = run.training.get("dataset", {})
    if training == rows.first.identity.dataset.model_dump(mode="json", exclude={"class_names"}):
        return True
    count = training.get("rows")
    if rows.data is None or whole is None or not isinstance(count, int):
        return False
    if count > len(whole) or training.get("ids") != ids_digest(whole.ids[:count]):
        return False
    known = set(map(str, whole.ids[:count]))
    is_same = training.get("labels") == values_digest(whole.labels[:count])
    return is_same and any(str(sample) in known for sample in rows.data.ids)


def store_notes(places: Sequence[Place], rows: HeldOut) -> Iterator[str]:
    """Notes on the stores that are compared."""
    for place in places:
        if isinstance(place, StorePlace):
            if not rows.has_same_view(place.store):
                yield f"{place.place} answered other views of the same samples"
            if not place.store.identity.encoding.COMPLETE:
                yield f"{place.place} keeps some classes: its others count as equally likely"
