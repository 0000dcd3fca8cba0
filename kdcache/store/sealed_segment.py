"""The entry of one segment in a seal."""

from typing import Annotated

from pydantic import Field

from kdcache.base.records import Record
from kdcache.base.view_span import ViewSpan

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SealedSegment(Record):
    """The entry of one segment in a seal: its views, the sha256 of its commits, and its segment digest."""

    views: ViewSpan
    commits: Digest
    digest: Digest
