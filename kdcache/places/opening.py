"""A path or URL is opened as the place that it names: folder, bucket, web server, hub, or a zip file in any of them."""

import os
import re
from collections.abc import Callable

from kdcache.errors import InvalidInputError, StoreNotFoundError
from kdcache.places.archive import UNPACK, Archive
from kdcache.places.bucket import Bucket
from kdcache.places.folder import Folder
from kdcache.places.http_requests import shown
from kdcache.places.hub import open_hub
from kdcache.places.parts import Parts
from kdcache.places.place import Place, is_url
from kdcache.places.web import WebFolder

SCHEMES: "dict[str, Callable[[str], Place]]" = {
    "http": WebFolder, "https": WebFolder, "s3": Bucket, "gs": Bucket, "az": Bucket, "hf": open_hub
}  # fmt: skip
CUT = re.compile(rf"(?P<scheme>{'|'.join(SCHEMES)}|file):/(?!/)", re.IGNORECASE)  # a slash is missing
ARCHIVE = re.compile(r"://.+/[^/]+\.zip\Z", re.IGNORECASE)


def open_place(place: str | os.PathLike[str]) -> Place:
    """The place that a path or URL names; web servers and zip files are read only.

    A file of this machine is read as a zip file, and so is a URL that ends in .zip. Raises InvalidInputError for an
    unknown scheme.
    """
    name = os.fspath(place)
    if (cut := CUT.match(name)) is not None:
        scheme = cut["scheme"]
        raise InvalidInputError(f"an address with one slash behind {scheme}: was given; write {scheme}://...")
    if not is_url(name):
        return Archive.of_file(name) if os.path.isfile(name) else Folder(name)
    return _archive_at(name) if ARCHIVE.search(name) else _place_at(name)


def _place_at(url: str) -> Place:
    scheme = url.partition("://")[0].lower()
    if "://" in url.partition("://")[2] or scheme not in SCHEMES:
        raise InvalidInputError(
            f"kdcache reads no {shown(scheme)}: addresses; it reads {', '.join(f'{name}://' for name in SCHEMES)} "
            "addresses, one at a time, and plain paths"
        )
    return SCHEMES[scheme](url)


def _archive_at(url: str) -> Archive:
    """The zip file that a URL names; it is looked for when something is first read."""
    parent, _, name = url.rpartition("/")
    place = _place_at(f"{parent}/")

    def open_file() -> Parts:
        if place.size(name) is None:
            raise StoreNotFoundError(f"{place.path(name)} is not there; check the address")
        with place.opened(name) as file:  # remote files hold nothing open
            return file

    return Archive(str(place.path(name)), open_file, far=True)


def open_folder(place: str | os.PathLike[str]) -> Folder:
    """A folder of this machine, to write to or to list. Raises InvalidInputError for a URL or a zip file."""
    name = os.fspath(place)
    folder = open_place(name)  # refuses schemes and passwords first
    if isinstance(folder, Folder):
        return folder
    if isinstance(folder, Archive):
        raise InvalidInputError(f"{folder.root} is read only; {UNPACK.format(folder.root)}, and work on that")
    raise InvalidInputError(
        f"{folder.root} is read only here; work on a folder, and publish a copy: kdcache push STORE URL"
    )
