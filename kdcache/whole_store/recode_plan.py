"""The plan of a recoding: the encoding that follows from its flags, and all that is refused before it starts."""

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from kdcache.base.records import Record, validated
from kdcache.base.tap_names import TAP
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, MismatchError, StoreNotFoundError
from kdcache.labels.encoding import Choice, Encoding
from kdcache.labels.encodings import narrowed
from kdcache.places.folder import Folder
from kdcache.places.opening import open_folder
from kdcache.places.place import is_url
from kdcache.sharing.sealed_files import chosen_segments
from kdcache.store.manifest import Identity, Provenance
from kdcache.store.origins import ORIGINS, RECODED, Origin, recoded_from
from kdcache.store.own_folder import require_writable
from kdcache.store.sealed_segment import SealedSegment
from kdcache.store.seals import split_pin
from kdcache.store.segment import Segment
from kdcache.store.store import Store


def _listed(value: Any) -> Any:
    """Texts, each with one name or several between commas, as a list of names."""
    texts = [value] if isinstance(value, str) else value
    return [name.strip() for text in texts for name in text.split(",")] if isinstance(texts, list) else texts


def _droppable(names: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := [name for name in names if name not in ("features", "head", "taps") and not name.startswith(TAP)]:
        raise ValueError(f"{wrong[0]!r} is none of features, head, taps (all of them) and tap:NAME")
    return names


class Narrowing(Record):
    """The changes to an encoding that a recoding asks for.

    None and () change nothing: the value is the source store's or, where the encoding is another, its default. Without
    `encoding`, `top_k` makes top-k of any store."""

    encoding: str | None = Field(default=None, description="the encoding to change to, topk, full or sampled")
    top_k: int | None = Field(default=None, ge=1, description="classes kept of each row, up to the store's")
    quantisation: Literal["default", "high"] | None = Field(
        default=None, description="steps of the gaps; not finer ones"
    )
    packing: Literal["residuals", "plain"] | None = Field(default=None, description="how gaps and tail are laid out")
    draws: int | None = Field(default=None, ge=1, description="ids drawn of each row, of --encoding sampled")
    draw_temperature: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="T at which they are drawn, and served alone; default 1"
    )
    drop: Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_droppable)] = Field(
        default=(), description="what to leave out: features, head, taps, tap:NAME"
    )


def narrow_identity(identity: Identity, narrowing: Narrowing) -> Identity:
    """The identity of the recoded store: the source store's with another encoding.

    Raises InvalidInputError for changes that would add to the source store, do not apply to it, or change nothing."""
    old = identity.encoding
    choice = Choice(
        top_k=narrowing.top_k,
        quantisation=narrowing.quantisation,
        packing=narrowing.packing,
        shuffled=identity.order.kind == "shuffled",
        draws=narrowing.draws,
        draw_temperature=narrowing.draw_temperature,
    )
    encoding = narrowed(old, choice, identity.space, narrowing.encoding).model_copy(
        update=_drop_changes(old, narrowing)
    )
    if encoding == old:
        problem = "asks for what the store has" if narrowing != Narrowing() else "names nothing to change"
        advice = "give --top-k, --quantisation, --packing or --drop; to copy a store or some views: kdcache pull"
        raise InvalidInputError(f"recode {problem} ({old.described()}): {advice}")
    record = {**identity.model_dump(), "encoding": encoding}
    result: Identity = validated(Identity, "the store that was asked for", **record)
    return result


def _drop_changes(encoding: Encoding, narrowing: Narrowing) -> dict[str, Any]:
    """Fields of the new encoding that drop features, head or taps."""
    taps = {f"{TAP}{tap.name}": tap for tap in encoding.taps}
    for name in narrowing.drop:
        if name.startswith(TAP) and name not in taps:
            has = ", ".join(taps) or "no taps"
            raise InvalidInputError(f"--drop {name} was asked of a store that keeps {has}; name one of those, or none")
        if not name.startswith(TAP) and not getattr(encoding, name):
            raise InvalidInputError(f"--drop {name} was asked of a store that keeps no {name}; leave it out")
    left = () if "taps" in narrowing.drop else tuple(tap for name, tap in taps.items() if name not in narrowing.drop)
    return {**{name: 0 for name in ("features", "head") if name in narrowing.drop}, "taps": left}


def open_source_store(url: str, views: ViewSpan | None) -> tuple[Store, dict[str, SealedSegment]]:
    """A sealed store, and those of its segments, by name, that are recoded: all, or the segments of `views`.

    Raises StoreNotFoundError where the store is not sealed, MissingBlockError for views that this copy left out,
    InvalidInputError for views that are not whole segments.
    """
    store = Store.open(url)
    if store.seal_record is None:
        root = store.folder.root
        raise StoreNotFoundError(f"{root} is not sealed: what is recoded must be whole; run: kdcache seal {root}")
    segments = chosen_segments(store, store.seal_record, views)
    return store, {store.segment_of(segment.views.start).layout.name: segment for segment in segments}


def open_output(out: str, source_url: str) -> Folder:
    """The output's folder: new, or holding a recoding to go on with.

    Raises InvalidInputError for a pin, a folder with other files, and one within the source store or around it."""
    if not is_url(path := split_pin(source_url)[0]):
        out_path, source_path = os.path.realpath(out), os.path.realpath(path)
        if os.path.commonpath([out_path, source_path]) in (out_path, source_path):
            raise InvalidInputError(f"the output {out} and the store {path} lie in one another; choose another place")
    require_writable(out)
    return open_folder(out)


def recoded_provenance(source: Store) -> Provenance:
    """Provenance of the output's manifest: the source store's, and the stores it was recoded from, nearest first."""
    nearest = Origin(content_id=source.content_id or "", encoding=source.identity.encoding)
    provenance = source.manifest.provenance
    origins = [origin.model_dump(mode="json") for origin in (nearest, *recoded_from(provenance))]
    return provenance.model_copy(update={RECODED: origins[:ORIGINS]})


def require_recoded_from(digest: str, segment: Segment, provenances: dict[int, Provenance]) -> None:
    """Raises MismatchError where a block of the output was not recoded from the source segment with this digest.

    `provenances` are those of the blocks of `segment` that lie in the output."""
    for block, provenance in provenances.items():
        record = (provenance.model_extra or {}).get(RECODED, {})
        origin = record.get("segment") if isinstance(record, dict) else None
        if origin != digest:
            problem = f"{segment.folder.root} holds {segment.layout.name} block {block} from elsewhere:"
            value = str(origin) if origin is not None else "nothing: it was not recoded"
            differences = [("recoded from segment", value, digest)]
            raise MismatchError(problem, differences, "recode into a new folder", ("the output", "the source"))
