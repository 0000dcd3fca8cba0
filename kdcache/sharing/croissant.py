"""Croissant 1.0 metadata (JSON-LD) for a sealed store, as far as Croissant can speak of Zarr.

Single files are FileObjects with sha256 and size. The shards of each array are a FileSet, which describes its values;
their sha256 and sizes are in the commits file of their segment, which is a FileObject. Soft labels are no record set: a
field needs a source, and Croissant has no extraction from Zarr. Class names are a record set that loads. The version is
1.0, which readers of 1.1 (mlcroissant 1.1) read as well: readers of 1.0 know no other.

mlcroissant checks the record in tests and does not write it: 15 more packages and 4 s of import would stand before a
command that a plain installation has to run.
"""

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

from kdcache.base.canonical import sha256_hex
from kdcache.errors import InvalidInputError
from kdcache.sharing.cards import CardFacts, card_facts, public
from kdcache.store.array_spec import ArraySpec
from kdcache.store.layout import MANIFEST, labels_spec, order_spec, seal_key
from kdcache.store.segment import Segment
from kdcache.store.store import Store

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
NAMES_MAX = 25_000  # classes whose names are listed
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(store: Store, published: str | None = None) -> str:
    """The JSON-LD of a sealed store. `published` is a date as 2026-11-26, since a store holds no times.

    Raises InvalidInputError for a store without a seal, and for a date that is none.
    """
    facts = card_facts(store)
    record: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": facts.name,
        "description": _description(facts),
        "citeAs": f"{facts.name}, kdcache store {facts.content_id}",
        "version": f"1.0.0+{facts.pin}",
        "identifier": facts.content_id,
        "keywords": ["knowledge distillation", "soft labels", "kdcache"],
        "distribution": [*_files(store), *(shards for segment in store.segments for shards in _shards(segment))],
    }
    names = store.identity.dataset.class_names
    if 0 < len(names) <= NAMES_MAX:
        record["recordSet"] = [_class_names(names)]
    if facts.license:
        record["license"] = facts.license
    if published is not None:
        record["datePublished"] = _day(published)
    return json.dumps(record, indent=2, sort_keys=True) + "\n"


def _description(facts: CardFacts) -> str:
    fields = facts.description
    teacher, data, transform = (public(fields[name]) for name in ("teacher", "data", "transform"))
    subclasses = f" (subclasses: {fields['subclasses']})" if "subclasses" in fields else ""
    return (
        f"Soft labels of {teacher}{subclasses} for {fields['rows']} samples of {data or 'data'}, views "
        f"{fields['views']} of transform {transform}, mixing {fields['mix']}: {fields['soft_labels']}. A kdcache store "
        "of format 1 in plain Zarr v3, read by kdcache or by its docs/format.md; views are not stored, but drawn again "
        f"from the data set. {facts.bytes} bytes in {facts.shards} shards; content id {facts.content_id}."
    )


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise InvalidInputError(f"published is {text!r}, which is no date; write it as 2026-11-26") from error


def _files(store: Store) -> list[dict[str, Any]]:
    """Manifest, seal and commits as they lie there, and the chunks of order and labels."""
    assert store.seal_record is not None
    keys = [MANIFEST, seal_key(store.seal_record.content_id)]
    for segment in store.segments:
        assert segment.commits_digest is not None
        keys += [segment.layout.record, segment.layout.commits_file(segment.commits_digest)]
    chunks = [key for spec in (order_spec(store.rows), labels_spec(store.rows)) for key in _chunks(spec)]
    return [*(_file(store, key, "application/json") for key in keys), *(_file(store, key) for key in chunks)]


def _chunks(spec: ArraySpec) -> list[str]:
    return [f"{spec.path}/zarr.json", *(spec.key(chunk) for chunk in range(-(-spec.shape[0] // spec.chunk[0])))]


def _file(store: Store, key: str, kind: str = "application/octet-stream") -> dict[str, Any]:
    data = store.folder.require(key, store.folder.mend)
    return {
        "@type": "cr:FileObject",
        "@id": key,
        "name": key,
        "contentUrl": key,
        "contentSize": f"{len(data)} B",
        "encodingFormat": "application/json" if key.endswith(".json") else kind,
        "sha256": sha256_hex(data),
    }


def _shards(segment: Segment) -> Iterator[dict[str, Any]]:
    """A FileSet for each array of a segment."""
    layout, commits = segment.layout, segment.commits().values()
    assert segment.commits_digest is not None
    commits_file = layout.commits_file(segment.commits_digest)
    for name, spec in layout.arrays.items():
        if name in segment.left_out:
            continue
        shards = [commit.shards[name] for commit in commits if name in commit.shards]
        size = sum(shard.size for shard in shards)
        shape = ", ".join(str(length) for length in spec.shape)
        yield {
            "@type": "cr:FileSet",
            "@id": spec.path,
            "name": spec.path,
            "description": f"Zarr v3 array of {spec.dtype} [{shape}], views first: {spec.text}. {len(shards)} "
            f"shards, {size} bytes; sha256 and size of each are in {commits_file}.",
            "encodingFormat": "application/octet-stream",
            "includes": "/".join([spec.path, "c", *("*" for _ in spec.shape)]),
        }


def _field(record_set: str, name: str, description: str, kind: str) -> dict[str, Any]:
    key = f"{record_set}/{name}"
    return {"@type": "cr:Field", "@id": key, "name": name, "description": description, "dataType": kind}


def _class_names(names: tuple[str, ...]) -> dict[str, Any]:
    fields = [
        _field("class-names", "id", "class id", "sc:Integer"),
        _field("class-names", "name", "what people call it", "sc:Text"),
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "class-names",
        "name": "class-names",
        "description": "The classes of the hard labels.",
        "key": {"@id": "class-names/id"},
        "field": fields,
        "data": [{"class-names/id": number, "class-names/name": name} for number, name in enumerate(names)],
    }
