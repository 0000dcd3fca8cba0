"""`compare` asks runs and stores for held-out rows, and holds them against a teacher's stored answers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kdcache.base.progress import Progress, silent
from kdcache.errors import InvalidInputError
from kdcache.pipelines.compare.asking import Asked
from kdcache.pipelines.compare.comparison import Comparison, Member
from kdcache.pipelines.compare.grouping import are_single, baseline_of, grouped, with_cells, with_flips
from kdcache.pipelines.compare.held_out import HeldOut
from kdcache.pipelines.compare.members import Place, RunPlace, StorePlace, folder_of, names_of, of_sweep, open_places
from kdcache.pipelines.compare.pictures import flipped
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.compare.validated import by_validation
from kdcache.store.store import Store
from kdcache.views.class_numbers import require_alike

FIRST = ("accuracy", "agreement", "nll", "ece", "kl_to_teacher", "least_kl_to_teacher")  # what is asked most often


def compare(settings: CompareSettings, *, progress: Progress = silent) -> Comparison:
    """Compare runs and stores on the rows of a held-out store, by one forward pass of each network.

    Raises InvalidInputError for members that cannot be compared (other classes, no end, a seed twice), MismatchError
    for data that is not the store's, ReplayError for views that are not those that the teacher saw.
    """
    settings = of_sweep(settings)
    places, notes = open_places(settings.runs)
    stores = [Store.open(url) for url in settings.store]
    if not stores:
        return by_validation(settings, places, notes)
    for place in places:
        _require_comparable(place, stores[0], settings)
    rows = HeldOut(settings, stores)
    asked, teacher = rows.ask(places, progress, in_parts=are_single(places, settings.by))
    others = names_of([str(store.folder.root) for store in stores[1:]]) if settings.combine is None else []
    names = names_of([folder_of(place) for place in places])
    members = [_member(*each, others) for each in zip(places, names, asked, strict=True)]
    groups, common = grouped(members, settings.by)
    baseline = baseline_of(settings.baseline, groups)
    groups = with_flips(groups, baseline, teacher.labels)
    known = dict.fromkeys(name for group in groups for member in group.members for name in member.measures)
    measures = tuple(dict.fromkeys([*(name for name in FIRST if name in known), *known]))
    parts = {member.place: each.parts for member, each in zip(members, asked, strict=True)}
    groups, intervals = with_cells(groups, baseline, measures, parts)
    first, samples = stores[0], stores[0].order[teacher.positions]
    data = rows.data
    comparison = Comparison(
        teacher_name=" + ".join(names_of([str(store.folder.root) for store in stores][: len(stores) - len(others)])),
        teacher=teacher.answers(),
        teacher_measures=teacher.tally.result(),
        labels=teacher.labels,
        sample_ids=() if data is None else tuple(str(data.ids[index]) for index in samples.tolist()),
        class_names=first.identity.dataset.class_names,
        groups=tuple(groups),
        baseline=baseline,
        measures=measures,
        intervals=intervals,
        data="not named" if data is None else data.name,
        common=common,
        warnings=tuple(_warnings(places, first)),
        notes=(*notes, *_notes(places, stores)),
    )
    if settings.pictures and data is not None:
        pictures = flipped(comparison, data, samples, count=settings.pictures)
        comparison = replace(comparison, pictures=pictures)
    return comparison


def _member(place: Place, name: str, asked: Asked, others: Sequence[str]) -> Member:
    measures, answers = asked.measures(others), asked.answers()
    if isinstance(place, StorePlace):
        return Member(name, place.place, "store", None, {}, measures, answers)
    return Member(
        name, place.place, "run", place.seed, place.settings, measures, answers, place.curves, place.bytes_a_row
    )


def _require_comparable(place: Place, first: Store, settings: CompareSettings) -> None:
    """Raises InvalidInputError for a run without data to be asked about, and for other classes than the store's."""
    teacher, dataset = first.identity.teacher, first.identity.dataset
    if isinstance(place, RunPlace):
        if not settings.data:
            advice = f"give --data, the data set of {first.folder.root}"
            raise InvalidInputError(f"{place.place} is a run, which is asked about pictures; {advice}")
        require_alike(dataset.class_names, place.class_names, classes=teacher.classes, store=str(first.folder.root))
        return
    own, name = place.store.identity, place.place
    if own.teacher.classes != teacher.classes:
        raise InvalidInputError(f"{name} has {own.teacher.classes} classes, {first.folder.root} has {teacher.classes}")
    if own.dataset.ids != dataset.ids:
        raise InvalidInputError(f"{name} is of other samples than {first.folder.root}; compare stores of one data set")
    require_alike(own.dataset.class_names, dataset.class_names, classes=own.teacher.classes, store=name)
    own.encoding.require_log_probs("compare")


def _warnings(places: Sequence[Place], first: Store) -> Iterator[str]:
    """What a reader must know before any figure: rows that a run was trained on, and trainings on unlike data."""
    runs = [place for place in places if isinstance(place, RunPlace)]
    own = first.identity.dataset.model_dump(mode="json", exclude={"class_names"})
    if taught := [run.place for run in runs if run.training.get("dataset") == own]:
        yield (
            f"THE ROWS ARE THE TRAINING ROWS of {len(taught)} of {len(runs)} runs ({taught[0]}): these figures tell "
            "how well they fit what they saw, not how they do on other data"
        )
    if len({str(run.training.get("dataset")) for run in runs}) > 1:
        yield "the runs were trained on unlike data sets: a difference between them may be one of data"
    if first.identity.plan.mix != "none":
        yield f"the views of {first.folder.root} are mixed: a label is that of the heavier picture"


def _notes(places: Sequence[Place], stores: Sequence[Store]) -> Iterator[str]:
    for place in places:
        if isinstance(place, StorePlace):
            if place.store.identity.plan != stores[0].identity.plan:
                yield f"{place.place} answered other views of the same samples"
            if not place.store.identity.encoding.COMPLETE:
                yield f"{place.place} keeps some classes: its others count as equally likely"
