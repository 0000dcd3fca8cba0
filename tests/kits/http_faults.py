"""Every way in which an answer over HTTP is spoiled, once, and what is wanted of whoever gets it.

Each row: how the answer is spoiled; what comes of a request for a whole file, for a part of one, of a copy and of a
put; what the error says where there is one. The hub is asked as any web server is. An object store is asked by obstore,
which tries again what the other two refuse, and follows what leads elsewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.kits.http_answers import (
    HIDDEN,
    PAGE,
    bare,
    cut,
    done,
    drip,
    drip_body,
    drip_chunks,
    endless,
    flipped,
    half,
    no_ranges,
    other_body,
    other_file,
    other_range,
    page,
    redirect,
    reset,
    stall,
    status,
    wrong_bytes,
)

if TYPE_CHECKING:
    from tests.kits.http_answers import Spoil

OUTLASTED = "outlasted"  # met less often than there are tries: asked for again, and the truth; for ever: refused
REFUSED = "refused"  # at once, by name, with the next step
ABSENT = "absent"  # nothing is there
UNSEEN = "unseen"  # taken for the answer; whoever asked holds it against crc32c or sha256
HARMLESS = "harmless"  # the truth
UNTRIED = ""
SEEN = (OUTLASTED, REFUSED, ABSENT, UNSEEN)  # for ever, a store is refused

AGAIN = "in 3 tries over .* s; check the address, run the same command again later"
LATER = "; run the same command again later"
ENDPOINT = "; check address, endpoint and region, and run the same command again"
SLOW = "stalled, or sent less than [0-9,]+ bytes/s for [0-9.]+ s"
UNUSABLE = f"StoreError: .* (gave no usable answer .*|{SLOW}), in 3 tries .*{ENDPOINT}"
DUE = "StoreError: .* answered {} .*, 20[06] was due; check the address"
RANGES = "answered 200 OK to a request for some of its bytes, 206 was due; use a server that has range requests"
RANGE = "StoreError: .* answered with range '.*', asked for were bytes [0-9]+-[0-9]+; use another server"
WHOLE = f"was sent whole, though some of its bytes were asked for: the server has no range requests.*{ENDPOINT}"
FEWER = "StoreError: .* sent [0-9]+ bytes, asked for were [0-9]+; use another server"
SENT = f"StoreError: .* sent [0-9]+ of [0-9]+ bytes, in 3 tries .*{ENDPOINT}"
LARGE = f"FormatError: .* {{}} [0-9]+ bytes, allowed are [0-9]+; it is no file of a store: check the address|{RANGES}"
POINTS = "StoreError: .* answered 30[27] .* and points to {}; if you trust it, name that address yourself"
SAME = "http://127.0.0.1:[0-9]+/rich.kd/[a-z0-9/.-]+"
TERABYTE = 10**12


@dataclass(frozen=True)
class Fault:
    """`said` is a regular expression over the kind and text of an error; the hub and the bucket may have their own."""

    spoil: "Spoil"
    whole: str
    part: str
    said: str = ""
    hub: str = ""
    bucket: str = ""
    but: Mapping[str, str] = field(default_factory=dict)  # "bucket part": what another speaker's request comes to
    pull: str = ""  # mostly what `whole` says; a copy asks again for what has another sha256
    put: str = HARMLESS  # it was done, and the answer to a put has no body that counts
    slow: bool = False  # it ends when patience does
    large: bool = False  # bytes without end

    def wants(self, speaker: str, call: str) -> str:
        if call == "pull" and not self.pull:
            return self.wants(speaker, "whole")
        return self.but.get(f"{speaker} {call}", getattr(self, call))

    def says(self, speaker: str) -> str:
        return {"web": "", "hub": self.hub, "bucket": self.bucket}[speaker] or self.said


PART = {"bucket part": OUTLASTED}
AT_BUCKET = {"bucket whole": OUTLASTED} | PART


def _passes(spoil: "Spoil", said: str, *, put: str = OUTLASTED, slow: bool = False) -> Fault:
    said = f"StoreError: .* {said}, {AGAIN}"
    return Fault(spoil, OUTLASTED, OUTLASTED, said, bucket=UNUSABLE, put=put, slow=slow)


def _tried_again(code: int, spoil: "Spoil") -> Fault:
    bucket = f"StoreError: .* answered {code} .*, in 3 tries .*{ENDPOINT}"
    return replace(_passes(spoil, f"answered {code} .*"), bucket=bucket)


def _refused(spoil: "Spoil", said: str, *, hub: str = "", bucket: str = "", put: str = REFUSED) -> Fault:
    bucket = bucket or f"StoreError: .* answered .*, in 1 tries .*{ENDPOINT}"
    return Fault(spoil, REFUSED, REFUSED, said, hub=hub, bucket=bucket, put=put)


def _closed(code: int) -> Fault:
    why = "there is no such repository, or" if code == 401 else ""
    return _refused(
        status(code), f"ClosedError: .* answered {code} .*; kdcache sends no password: use an address that is open",
        hub=f"answered {code} .*({why} the token that was given .*; set HF_TOKEN to one that|{LATER})",
        bucket=f"ClosedError: .* answered {code} .*; check the credentials in the environment .* and what they may do",
    )  # fmt: skip


def _gone(code: int) -> Fault:
    return Fault(
        status(code), ABSENT, REFUSED, "DamagedError: .* is missing; publish the store again, whole", put=REFUSED,
        hub=f"StoreError: .* answered {code} .*{LATER}",
        bucket=f"DamagedError: .* is missing; push the store again|StoreError: .* answered {code} .*{ENDPOINT}",
        but={"bucket whole": ABSENT if code == 404 else REFUSED},
    )  # fmt: skip


def _longer(change: Callable[[bytes], bytes]) -> Fault:
    """A copy knows how long a file is, and takes no more."""
    said = "DamagedError: .* has [0-9]+ bytes, before it had [0-9]+; publish the store again"
    bucket = "DamagedError: .* has [0-9]+ bytes, [0-9]+ were expected; push the store again"
    return Fault(other_file(change), UNSEEN, REFUSED, said, bucket=bucket, pull=REFUSED)


def _leads(spoil: "Spoil", where: str) -> Fault:
    hub = "StoreError: .* the hub points to .*, which is no https:// address without a password; check http"
    bucket = f"{UNUSABLE}|StoreError: .* answered 302 Found.*{ENDPOINT}"
    return replace(_refused(spoil, POINTS.format(where), hub=hub, bucket=bucket), but=AT_BUCKET)


FAULTS: dict[str, Fault] = {
    "400": _refused(status(400), DUE.format(400), hub=f"answered 400 .*(; check the address|{LATER})"),
    "401": _closed(401),
    "403": _closed(403),
    "404": _gone(404),
    "410": _gone(410),
    "413": _refused(status(413), DUE.format(413)),
    "418": _refused(status(418), DUE.format(418)),
    **{str(code): _tried_again(code, status(code)) for code in (429, 500, 502, 503, 504)},
    "503 wait": _tried_again(503, status(503, Retry_After="3600")),
    "reset": _passes(reset, "gave no answer .RemoteDisconnected.*"),
    "lost": _passes(done(reset), "gave no answer .RemoteDisconnected.*"),
    "lost 500": _tried_again(500, done(status(500))),
    "cut": _passes(cut, "broke off after [0-9]+ of [0-9]+ bytes", put=HARMLESS),
    "stall": _passes(stall, SLOW, put=HARMLESS, slow=True),
    "drip": _passes(drip, "gave no answer .TimeoutError: timed out.", put=UNTRIED, slow=True),
    "drip of a body": _passes(drip_body, SLOW, put=UNTRIED, slow=True),
    "drip of chunks": _passes(drip_chunks, SLOW, put=UNTRIED, slow=True),
    "page": _refused(
        done(page), "StoreError: .* answered 200 OK with a web page, not a file; check the address", put=HARMLESS,
        bucket=f"StoreError: .* came as a web page, not a file; check the endpoint|{WHOLE}",
    ),
    "page as data": _longer(lambda data: PAGE),
    "wrong length": _longer(lambda data: data + b"more"),
    "emptied": Fault(other_file(lambda data: b""), UNSEEN, REFUSED, RANGES, bucket=WHOLE),
    "empty": Fault(other_body(lambda data: b""), UNSEEN, REFUSED, FEWER, bucket=SENT, but=PART),
    "short": Fault(other_body(half), UNSEEN, REFUSED, FEWER, bucket=SENT, but=PART),
    "flip": Fault(other_body(flipped), UNSEEN, UNSEEN),
    "wrong bytes": Fault(wrong_bytes, UNSEEN, UNSEEN),
    "bare": Fault(bare, HARMLESS, REFUSED, RANGE, bucket=UNUSABLE, but=PART),
    "no ranges": Fault(no_ranges, HARMLESS, REFUSED, RANGES, bucket=WHOLE),
    "other range": Fault(
        other_range, REFUSED, REFUSED, f"{RANGE}|{DUE.format(206)}", but={"bucket whole": UNSEEN},
        bucket=f"answered with other bytes than were asked for.*{ENDPOINT}",
    ),
    "encoded": Fault(
        other_body(lambda data: b"\x1f\x8b", **{"Content-Encoding": "gzip"}), REFUSED, REFUSED,
        "StoreError: .* came encoded as gzip, asked for was identity; switch its compression off for stores",
        bucket=SENT, but={"bucket whole": UNSEEN} | PART, put=UNTRIED,  # it may see, and ask again, or not
    ),
    "elsewhere": Fault(
        redirect(lambda it: f"{it.server.elsewhere}{it.path.partition('?')[0]}?token={HIDDEN}", 307), REFUSED, REFUSED,
        POINTS.format(SAME), hub=f"StoreError: .* answered 404 .*{LATER}", put=REFUSED, but={"bucket whole": ABSENT},
        bucket=f"DamagedError: .* is missing; push the store again|answered 307 .*{ENDPOINT}",
    ),
    "loop": replace(
        _leads(redirect(lambda it: it.path), SAME), but=AT_BUCKET | {"hub whole": OUTLASTED, "hub part": OUTLASTED},
        hub="StoreError: .* the hub points on and on, 4 times; check the endpoint",
    ),
    "to ftp": _leads(redirect(lambda it: f"ftp://elsewhere/file?{HIDDEN}"), "ftp://elsewhere/file"),
    "to no port": _leads(redirect(lambda it: f"http://127.0.0.1:99999999/?{HIDDEN}"), "http://127.0.0.1:99999999/"),
    "to a user": _leads(redirect(lambda it: f"http://{HIDDEN}@127.0.0.1:9/?{HIDDEN}"), "http://127.0.0.1:9/"),
    "endless": Fault(
        endless(), REFUSED, REFUSED, LARGE.format("sends more than"), bucket=UNUSABLE, but=AT_BUCKET,
        put=UNTRIED, large=True,
    ),
    "huge": Fault(
        endless(announced=TERABYTE), REFUSED, REFUSED, LARGE.format("announces"), put=UNTRIED, large=True,
        bucket=f"FormatError: .* has {TERABYTE} bytes, allowed are [0-9]+; .*: fetch the store again|{WHOLE}",
    ),
    "endless error": replace(
        _gone(404), spoil=endless(404, announced=TERABYTE), put=UNTRIED, large=True,
        but={"bucket whole": UNTRIED, "bucket part": UNTRIED},  # obstore reads an error's body whole, however long
    ),
}  # fmt: skip

ALIKE = (  # to whoever only knows how a request ended
    "400", "413", "418", "429", "502", "504", "503 wait", "lost", "lost 500", "to ftp", "to no port", "to a user",
)  # fmt: skip


def cases(
    call: str, *outcomes: str, speakers: tuple[str, ...] = ("web", "hub", "bucket"), alike: tuple[str, ...] = ALIKE
) -> list[tuple[str, str]]:
    """(speaker, fault) of all that come to one of these outcomes, without those that are like others."""
    pairs = [(speaker, fault) for speaker in speakers for fault in FAULTS if fault not in alike]
    return [pair for pair in pairs if FAULTS[pair[1]].wants(pair[0], call) in outcomes]
