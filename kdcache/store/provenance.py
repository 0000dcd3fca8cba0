"""The provenance of a pass: what a store's bytes may depend on, and no identity holds."""

from pydantic import ConfigDict, Field

from kdcache.base.records import Record


class Provenance(Record):
    """The provenance of a pass: versions, device and data. It is reported and never refused, and holds no times, hosts
    or paths. Later versions may add to it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    versions: dict[str, str] = Field(default_factory=dict)
    device: str = "cpu"
    cpu_capability: str = ""
    decoder: str = ""
    data: str = ""
