"""A store in a few lines, read from manifest, seal and commits alone, and the first rows of a view."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kdcache.base.view_span import shown_spans
from kdcache.errors import InvalidInputError
from kdcache.store.lineage import chain_of
from kdcache.store.lineage_text import SHOWN
from kdcache.store.manifest import TeacherIdentity
from kdcache.store.origins import recoded_from
from kdcache.store.store import Store

BEST = 5


def describe_store(store: Store) -> dict[str, Any]:
    """A store as field : value; `parents` are nested, as ancestors. No array is read, and nothing of a sealed store is
    listed."""
    identity, provenance, card = store.identity, store.manifest.provenance, store.card
    encoding, teacher, plan = identity.encoding, identity.teacher, identity.plan
    state = "sealed" if store.content_id else _state(store)
    return {
        "store": str(store.folder.root),
        "name": card.name,
        "license": card.license,
        "notes": card.notes,
        "format": identity.format,
        "state": state,
        "content_id": store.content_id,
        "data": provenance.data,
        "rows": identity.dataset.rows,
        "sequence": identity.dataset.sequence,
        "struck": sum(len(segment.struck()) for segment in store.segments),
        "classes": teacher.label_classes,
        "views": shown_spans(segment.views for segment in store.segments),
        "soft_labels": encoding.title,
        "features": encoding.features,
        "head": bool(encoding.head),
        "contents": encoding.contents or "none",
        "taps": list(_taps(store)),
        "teacher": teacher.name + _arguments(teacher.arguments),
        "teacher_weights": teacher.weights_text(16),
        "teacher_precision": teacher.precision,
        "masked_classes": list(teacher.masked_classes),
        **_answers(teacher),
        "mean": list(teacher.mean),
        "std": list(teacher.std),
        "transform": plan.transform.name + _arguments(plan.transform.arguments),
        "transform_text": " ".join(plan.transform.text.split()),
        "mix": plan.mix if plan.mix == "none" else f"{plan.mix}, alpha {plan.mix_alpha:g}",
        "seed": plan.seed,
        "order": identity.order.kind,
        "block": ", ".join(f"{segment.layout.block} rows x {len(segment.views)} views" for segment in store.segments),
        "parents": [ancestor.model_dump(mode="json") for ancestor in chain_of(store)],
        "recoded_from": [
            f"{origin.content_id[:SHOWN]} ({origin.encoding.described()})" for origin in recoded_from(provenance)
        ],
        "made_with": ", ".join(f"{name} {version}" for name, version in sorted(provenance.versions.items())),
        "made_on": " ".join(part for part in (provenance.device, provenance.cpu_capability) if part),
        "decoder": provenance.decoder,
    }


def describe_rows(store: Store, count: int, view: int | None) -> list[dict[str, Any]]:
    """The first `count` positions of a view (by default the lowest) that have an answer: dataset index, hard label, and
    the best classes with probabilities at T = 1, or the ids that were drawn most often with their shares."""
    if not store.every_view:
        raise InvalidInputError(f"{store.folder.root} has no views yet; run kdcache extract")
    view = store.every_view[0] if view is None else view
    struck = store.struck(view)
    positions = np.setdiff1d(np.arange(min(count + len(struck), store.rows), dtype=np.int64), struck)[:count]
    ids, probabilities, tail = store.read(view, positions).by_class().shown()
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :BEST]
    classes = np.take_along_axis(ids, best, axis=-1)
    values = np.take_along_axis(probabilities, best, axis=-1)
    names = store.identity.dataset.class_names
    return [
        {
            "position": int(position),
            "index": int(store.order[position]),
            "label": class_name(names, int(store.labels[position])),
            "best": ", ".join(
                f"{class_name(names, int(c))} {p:.3f}" for c, p in zip(classes[row], values[row], strict=True) if p > 0
            ),
            "tail": None if tail is None else round(float(tail[row]), 4),
        }
        for row, position in enumerate(positions)
    ]


def _answers(teacher: TeacherIdentity) -> dict[str, str]:
    """How the network's answers became logits of the data's classes, where they were not that."""
    facts: dict[str, str] = {} if teacher.answers == "logits" else {"teacher_answers": teacher.answers}
    mapped = sum(label >= 0 for label in teacher.class_map)
    if teacher.class_map:
        facts["class_map"] = f"{mapped} of the network's {len(teacher.class_map)} classes"
    if teacher.subclasses > 1:
        facts["subclasses"] = f"{teacher.subclasses} a class, {teacher.classes} logits"
    return facts


def _taps(store: Store) -> Iterator[str]:
    """The taps with their shapes, and the views of which this copy was made without them."""
    for tap in store.identity.encoding.taps:
        views = shown_spans(segment.views for segment in store.segments if tap.name in segment.left_out_taps)
        absent = f" (views {views} were left out)" if views else ""
        yield f"{tap.name} {'x'.join(map(str, tap.shape))}{absent}"


def _state(store: Store) -> str:
    parts = [
        f"{len(segment.commits())} of {segment.layout.blocks} blocks of {segment.layout.name}"
        for segment in store.segments
    ]
    return "not sealed: " + (", ".join(parts) or "no views yet")


def _arguments(arguments: dict[str, Any]) -> str:
    inner = ", ".join(f"{name}={value}" for name, value in sorted(arguments.items()))
    return f" ({inner})" if inner else ""


def class_name(names: tuple[str, ...], label: int) -> str:
    """The name of a class, its number where it has no name, `none` for label -1."""
    if label < 0:
        return "none"
    return names[label] if label < len(names) else str(label)
