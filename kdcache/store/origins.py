"""Origins: the stores that a store was recoded from, as the provenance of its manifest reports them."""

from pydantic import Field, ValidationError

from kdcache.base.records import Record
from kdcache.labels.encodings import AnyEncoding
from kdcache.store.manifest import Provenance

RECODED = "recoded"  # key in a manifest's provenance
ORIGINS = 16  # recodings that are shown


class Origin(Record):
    """A store that another was recoded from: its content id and its encoding."""

    content_id: str = Field(pattern=r"^[0-9a-f]{64}$")
    encoding: AnyEncoding


def recoded_from(provenance: Provenance) -> tuple[Origin, ...]:
    """The stores that a store was recoded from, the nearest first. Empty where the provenance holds another record,
    for provenance is reported and never refused."""
    records = (provenance.model_extra or {}).get(RECODED, [])
    try:
        return tuple(Origin.model_validate(record) for record in records[:ORIGINS]) if isinstance(records, list) else ()
    except ValidationError:
        return ()
