"""What recoding a store means: the encoding that follows from what was asked, and everything that is refused first."""

import os
from pathlib import Path
from typing import Any, Literal

from kdcache.base.records import Record, validated
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, MismatchError, StoreNotFoundError
from kdcache.labels.encoding import Encoding, described
from kdcache.places.folder import Folder
from kdcache.places.opening import open_folder
from kdcache.places.place import is_url
from kdcache.sharing.sealed_files import chosen_segments
from kdcache.store.layout import MANIFEST
from kdcache.store.lineage import ORIGINS, RECODED, Origin, recoded_from
from kdcache.store.manifest import Identity, Provenance
from kdcache.store.seals import SealedSegment, split_pin
from kdcache.store.segment import Segment
from kdcache.store.store import Store

UPWARD = "what was not kept cannot be had back without the teacher: run kdcache extract"


class Narrowing(Record):
    """What of an encoding is to change; None and nothing: as in the source, from full to top-k as extract has it."""

    top_k: int | None = None
    quantisation: Literal["default", "high"] | None = None
    packing: Literal["residuals", "plain"] | None = None
    drop: tuple[Literal["features", "head"], ...] = ()


def narrowed(identity: Identity, wanted: Narrowing) -> Identity:
    """The identity of the recoded store: the source's, but for the encoding. Raises InvalidInputError for what would
    add to the source, does not apply to it, or changes nothing."""
    old = identity.encoding
    changes = {**_kept(identity, wanted), **_dropped(old, wanted)}
    encoding = validated(Encoding, "the encoding that was asked for", **{**dict(old), **changes})
    if encoding == old:
        asked = "asks for what the store has" if wanted != Narrowing() else "names nothing to change"
        advice = "give --top-k, --quantisation, --packing or --drop; to copy a store or some views: kdcache pull"
        raise InvalidInputError(f"recode {asked} ({described(old)}): {advice}")
    record = {**identity.model_dump(), "encoding": encoding}
    recoded: Identity = validated(Identity, "the store that was asked for", **record)
    return recoded


def _kept(identity: Identity, wanted: Narrowing) -> dict[str, Any]:
    old = identity.encoding
    if wanted.top_k is None and old.k is None:
        if wanted.quantisation or wanted.packing:
            raise InvalidInputError("the store holds all logits, which have no gaps to quantise or pack; give --top-k")
        return {}
    k = old.k if wanted.top_k is None else wanted.top_k
    assert k is not None
    if old.k is not None and k > old.k:
        raise InvalidInputError(f"--top-k {k} was asked of a store that holds the top {old.k}; {UPWARD}")
    if old.k is not None and (old.quantisation, wanted.quantisation) == ("default", "high"):
        raise InvalidInputError(f"--quantisation high was asked of a store in steps of 1/16 nat; {UPWARD}")
    usable = identity.teacher.classes - len(identity.teacher.masked_classes)
    if k > usable:
        raise InvalidInputError(f"--top-k {k} was asked of {usable} classes that are not masked; choose 1 to {usable}")
    from_full = old.k is None
    return {
        "name": "topk",
        "k": k,
        "quantisation": wanted.quantisation or old.quantisation,
        "packing": wanted.packing or ("residuals" if from_full else old.packing),
        "class_means": identity.order.kind == "shuffled" and k < usable if from_full else old.class_means,
    }


def _dropped(old: Encoding, wanted: Narrowing) -> dict[str, int]:
    for name in wanted.drop:
        if not getattr(old, name):
            raise InvalidInputError(f"--drop {name} was asked of a store that keeps no {name}; leave it out")
    return dict.fromkeys(wanted.drop, 0)


def open_source(url: str, views: ViewSpan | None) -> tuple[Store, dict[str, SealedSegment]]:
    """A sealed store, and by name the segments of it that are recoded: all, or those of some views.

    Raises StoreNotFoundError where it is not sealed, MissingBlockError for views that this copy left out,
    InvalidInputError for views that are not whole segments.
    """
    store = Store.open(url)
    if store.seal_record is None:
        root = store.folder.root
        raise StoreNotFoundError(f"{root} is not sealed: what is recoded must be whole; run: kdcache seal {root}")
    chosen = chosen_segments(store, store.seal_record, views)
    return store, {store.segment_of(each.views.start).layout.name: each for each in chosen}


def open_target(out: str, source: str) -> Folder:
    """The output's folder: new, or a store to go on with. Raises InvalidInputError for a pin, for other files, and for
    a folder within the source or around it."""
    if split_pin(out)[1] is not None:
        raise InvalidInputError(f"the output {out} is a pin, which can only be read; name a folder")
    folder = open_folder(out)
    if not is_url(path := split_pin(source)[0]):
        one, other = os.path.realpath(out), os.path.realpath(path)
        if os.path.commonpath([one, other]) in (one, other):
            raise InvalidInputError(f"the output {out} and the store {path} lie in one another; choose another place")
    root = Path(out)
    others = sorted({each.name for each in root.iterdir()} - {"kdcache"}) if root.exists() else []
    if others and folder.size(MANIFEST) is None:
        raise InvalidInputError(f"{out} holds other files ({others[0]}); choose another place for the store")
    return folder


def told(source: Store) -> Provenance:
    """Provenance of the recoded store's manifest: the source's, and what it was recoded from, the nearest first."""
    own = Origin(content_id=source.content_id or "", encoding=source.identity.encoding)
    before = source.manifest.provenance
    origins = [each.model_dump(mode="json") for each in (own, *recoded_from(before))]
    return before.model_copy(update={RECODED: origins[:ORIGINS]})


def require_own(segment: Segment, blocks: dict[int, Provenance], digest: str) -> None:
    """Raises MismatchError where a block that lies in the output was not recoded from the source's segment."""
    for block, provenance in blocks.items():
        extra = (provenance.model_extra or {}).get(RECODED, {})
        found = extra.get("segment") if isinstance(extra, dict) else None
        if found != digest:
            what = f"{segment.folder.root} holds {segment.layout.name} block {block} from elsewhere:"
            stands = str(found) if found is not None else "nothing: it was not recoded"
            advice = "recode into a new folder"
            raise MismatchError(what, [("recoded from segment", stands, digest)], advice, ("the output", "the source"))
