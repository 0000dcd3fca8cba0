"""`compare` asks runs and stores for held-out rows, and holds them against a teacher's stored answers."""

from collections.abc import Sequence
from dataclasses import replace

from kdcache.base.progress import Progress, silent
from kdcache.pipelines.compare.alike import require_comparable, store_notes, trained_on
from kdcache.pipelines.compare.asking import Asked
from kdcache.pipelines.compare.comparison import Comparison, Member
from kdcache.pipelines.compare.grouping import are_single, baseline_of, grouped, with_cells, with_flips
from kdcache.pipelines.compare.held_out import HeldOut
from kdcache.pipelines.compare.members import (
    Place,
    RunPlace,
    StorePlace,
    name_of,
    names_of,
    of_sweep,
    open_places,
    unlike_trainings,
)
from kdcache.pipelines.compare.pictures import flipped
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.compare.validated import by_validation
from kdcache.store.store import Store

FIRST = ("accuracy", "agreement", "nll", "ece", "kl_to_teacher", "least_kl_to_teacher")  # what is asked most often


def compare(settings: CompareSettings, *, progress: Progress = silent) -> Comparison:
    """A comparison holds runs and stores against a teacher on the rows of a held-out store, by one forward pass of each
    network.

    Args:
        settings: A field for each option of `kdcache compare`.
        progress: A callable that hears of the work that is done.

    Raises InvalidInputError for members that cannot be compared (other classes, no end, a seed twice), MismatchError
    for data that is not the store's, ReplayError for views that are not those that the teacher saw.

    Examples:
        >>> from kdcache.pipelines.compare.settings import CompareSettings
        >>> comparison = compare(CompareSettings(runs=("digits.kd",), store=("digits.kd",)))
        >>> comparison.groups[0].members[0].measures["accuracy"].rows
        300
    """
    settings = of_sweep(settings)
    places, notes = open_places(settings.runs)
    stores = [Store.open(url) for url in settings.store]
    if not stores:
        return by_validation(settings, places, notes)
    for place in places:
        require_comparable(place, stores[0], settings)
    rows = HeldOut(settings, stores)
    asked, teacher = rows.ask(places, progress, in_parts=are_single(places, settings.by))
    others = names_of([str(store.folder.root) for store in stores[1:]]) if settings.combine is None else []
    names = names_of([name_of(place) for place in places])
    members = [_member(*each, others) for each in zip(places, names, asked, strict=True)]
    groups, common = grouped(members, settings.by)
    baseline = baseline_of(settings.baseline, groups)
    groups = with_flips(groups, baseline, teacher.labels)
    known = dict.fromkeys(name for group in groups for member in group.members for name in member.measures)
    measures = tuple(dict.fromkeys([*(name for name in FIRST if name in known), *known]))
    parts = {member.place: each.parts for member, each in zip(members, asked, strict=True)}
    groups, intervals = with_cells(groups, baseline, measures, parts)
    first, data, samples = stores[0], rows.data, stores[0].order[teacher.positions]
    runs = [place for place in places if isinstance(place, RunPlace)]
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
        warnings=(*trained_on(runs, rows), *unlike_trainings(runs)),
        notes=(*notes, *store_notes(places, rows)),
    )
    if settings.pictures and data is not None:
        pictures = flipped(comparison, data, samples, count=settings.pictures)
        comparison = replace(comparison, pictures=pictures)
    return comparison


def _member(place: Place, name: str, asked: Asked, others: Sequence[str]) -> Member:
    measures, answers = asked.measures(others), asked.answers()
    if isinstance(place, StorePlace):
        return Member(name, place.place, "store", None, {}, measures, answers)
    return place.member(name, measures, answers)
