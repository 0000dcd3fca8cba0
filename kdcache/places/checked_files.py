"""A whole file is checked against its sha256; a far place is asked again, for bytes may be spoiled on the way."""

from kdcache.base.canonical import sha256_hex
from kdcache.errors import DamagedError
from kdcache.places.place import Place

TRIES = 3  # fetches of a file whose bytes are not those of its sha256


def require_sha256(place: Place, key: str, size: int, sha256: str, *, says: str) -> bytes:
    """The `size` bytes under a key, whose sha256 is this one. Raises DamagedError.

    `says` are the words of the error that stand before the expected sha256, such as "committed was".

    A zip file's crc32 finds a spoiled byte before the sha256 does, so that is tried again too.
    """
    problem = ""
    for tries in range(TRIES if place.far else 1, 0, -1):
        try:
            data = place.get(key, limit=size)
        except DamagedError:
            if tries == 1:
                raise
            continue
        if data is None:
            raise DamagedError(f"{place.path(key)} is missing; {place.mend}")
        if (digest := sha256_hex(data)) == sha256 and len(data) == size:
            return data
        problem = f"has sha256 {digest[:16]}" if len(data) == size else f"has {len(data)} bytes of {size}"
    raise DamagedError(f"{place.path(key)} {problem}, {says} {sha256[:16]}; {place.mend}")
