"""Every way in which an answer over HTTP is spoiled, once, and what is wanted of whoever gets it.

Each row: how the answer is spoiled; what comes of a request for a whole file, for a part of one, of a copy and of a
put; what the error says where there is one. The hub is asked as any web server is. An object store is asked by obstore,
which tries again what the other two refuse, and follows what leads elsewhere.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kits.http_server import Answer, Handler

    Spoil = Callable[[Handler], None]

OUTLASTED = "outlasted"  # met less often than there are tries: asked for again, and the truth; for ever: refused
REFUSED = "refused"  # at once, by name, with the next step
ABSENT = "absent"  # nothing is there
UNSEEN = "unseen"  # taken for the answer; whoever asked holds it against crc32c or sha256
HARMLESS = "harmless"  # the truth
UNTRIED = ""
SEEN = (OUTLASTED, REFUSED, ABSENT, UNSEEN)  # for ever, a store is refused

PAGE = b"<!doctype html><title>It works</title>" + b"<p>not found</p>" * 100
MIB = 2**20
HIDDEN = "hidden-word"  # of a redirect's query or user: no message shows it
WORDS = "words-of-the-server"  # of an error's body: who reads shows none
AGAIN = "in 3 tries over .* s; check the address, run the same command again later"
ENDPOINT = "; check address, endpoint and region, and run the same command again"
RANGES = "answered 200 OK to a request for some of its bytes, 206 was due; use a server that has range requests"
TRUST = "answered 30[27] .* and points to {}; if you trust it, name that address yourself"


def _answer(status: int, body: bytes = b"", **headers: str) -> "Answer":
    from tests.kits.http_server import Answer

    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def _status(code: int, **headers: str) -> "Spoil":
    body = f"<Error><Code>Made</Code><Message>{WORDS}</Message></Error>".encode()
    said = {"Content_Type": "application/xml", "X_Error_Message": "the server says no", **headers}
    return lambda it: it.send(_answer(code, body, **said))


def _to(where: "Callable[[Handler], str]", code: int = 302) -> "Spoil":
    return lambda it: it.send(_answer(code, Location=where(it)))


def _body(change: Callable[[bytes], bytes], **headers: str) -> "Spoil":
    """The right answer with another body, and the announced length agrees."""

    def spoil(it: "Handler") -> None:
        answer = it.truth()
        it.send(replace(answer, body=change(answer.body), headers={**answer.headers, **headers}))

    return spoil


def _other_file(it: "Handler", change: Callable[[bytes], bytes]) -> None:
    """As a server answers that has another file there."""
    whole = it.truth(whole=True)
    it.send(it.part(replace(whole, body=change(whole.body))))


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return half(data) + bytes(byte ^ 16 for byte in data[middle : middle + 1]) + data[middle + 1 :]


def cut(it: "Handler") -> None:
    """Half of the body, though all of it is announced."""
    answer = it.truth()
    it.send(replace(answer, body=half(answer.body)), announced=len(answer.body))


def other_range(it: "Handler") -> None:
    """Bytes from one further on, and the header says so."""
    whole = it.truth(whole=True)
    part, size = it.part(whole, shift=1), len(whole.body)
    first, last = it.asked_for(size) or (0, size - 1)
    headers = {**part.headers, "Content-Range": f"bytes {first + 1}-{last + 1}/{size}"}
    it.send(replace(part, status=206, headers=headers))


def endless(it: "Handler", status: int = 200, **headers: str) -> None:
    it.send_response(status)
    for name, value in headers.items():
        it.send_header(name.replace("_", "-"), value)
    it.end_headers()
    it.close_connection = True
    while True:
        it.wfile.write(bytes(MIB))
        it.server.sent += MIB


def drip(it: "Handler") -> None:
    """An answer that begins, one byte at a time, and never ends."""
    it.close_connection = True
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"." * 10_000:
        it.wfile.write(bytes([byte]))
        time.sleep(0.02)


def stall(it: "Handler") -> None:
    """Headers at once, then nothing until the other side hangs up."""
    answer = it.truth()
    it.send(replace(answer, body=b""), announced=len(answer.body))
    it.wfile.flush()
    it.connection.settimeout(30.0)
    it.connection.recv(1)
    it.close_connection = True


def done(then: "Spoil") -> "Spoil":
    """It was done, and who asked for it hears something else."""

    def spoil(it: "Handler") -> None:
        it.truth()
        then(it)

    return spoil


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
    pull: str = (
        ""  # what a copy comes to, where bytes of another sha256 are asked for again; mostly what a whole file does
    )
    put: str = HARMLESS  # it was done, and the answer to a put has no body that counts
    slow: bool = False  # it ends when patience does
    large: bool = False  # bytes without end

    def wants(self, speaker: str, call: str) -> str:
        if call == "pull" and not self.pull:
            return self.wants(speaker, "whole")
        return self.but.get(f"{speaker} {call}", getattr(self, call))

    def says(self, speaker: str) -> str:
        return {"web": "", "hub": self.hub, "bucket": self.bucket}[speaker] or self.said


def _passes(spoil: "Spoil", said: str, bucket: str = "gave no usable answer", *, slow: bool = False) -> Fault:
    return Fault(
        spoil, OUTLASTED, OUTLASTED, f"StoreError: .* {said}, {AGAIN}", put=OUTLASTED, slow=slow,
        bucket=f"StoreError: .* {bucket}.*, in 3 tries .*{ENDPOINT}",
    )  # fmt: skip


def _tried_again(code: int, **headers: str) -> Fault:
    return _passes(_status(code, **headers), f"answered {code} .*", f"answered {code} ")


def _refused(spoil: "Spoil", said: str, *, hub: str = "", bucket: str = "", put: str = REFUSED) -> Fault:
    bucket = bucket or f"StoreError: .* answered .*, in 1 tries .*{ENDPOINT}"
    return Fault(spoil, REFUSED, REFUSED, said, hub=hub, bucket=bucket, put=put)


def _closed(code: int) -> Fault:
    why = "there is no such repository, or" if code == 401 else ""
    return _refused(
        _status(code), f"ClosedError: .* answered {code} .*; kdcache sends no password: use an address that is open",
        hub=f"answered {code} .*({why} the token that was given .*; set HF_TOKEN to one that|; run the same command)",
        bucket=f"ClosedError: .* answered {code} .*; check the credentials in the environment .* and what they may do",
    )  # fmt: skip


def _gone(code: int) -> Fault:
    return Fault(
        _status(code), ABSENT, REFUSED, "DamagedError: .* is missing; publish the store again, whole", put=REFUSED,
        hub=f"StoreError: .* answered {code} .*; run the same command again later",
        bucket=f"DamagedError: .* is missing; push the store again|StoreError: .* answered {code} .*{ENDPOINT}",
        but={"bucket whole": ABSENT if code == 404 else REFUSED},
    )  # fmt: skip


def _points(spoil: "Spoil", to: str) -> Fault:
    hub = "StoreError: .* the hub points to .*, which is no https:// address without a password; check http"
    bucket = f"StoreError: .* (gave no usable answer .*, in 3 tries|answered 302 Found).*{ENDPOINT}"
    fault = _refused(spoil, f"StoreError: .* {TRUST.format(to)}", hub=hub, bucket=bucket)
    return replace(fault, but=AT_BUCKET)


PART = {"bucket part": OUTLASTED}
AT_BUCKET = {"bucket whole": OUTLASTED} | PART


def _longer(change: Callable[[bytes], bytes]) -> Fault:
    """A copy knows how long a file is, and asks for no more."""
    bucket = "DamagedError: .* has [0-9]+ bytes, [0-9]+ were expected; push the store again"
    said = "DamagedError: .* has [0-9]+ bytes, before it had [0-9]+; publish the store again"
    return Fault(lambda it: _other_file(it, change), UNSEEN, REFUSED, said, bucket=bucket, pull=REFUSED)


DUE = "StoreError: .* answered {} .*, 20[06] was due; check the address"
LARGE = "FormatError: .* {} [0-9]+ bytes, allowed are [0-9]+; it is no file of a store: check the address|" + RANGES
WHOLE = "was sent whole, though some of its bytes were asked for: the server has no range requests.*" + ENDPOINT
FEWER = "StoreError: .* sent [0-9]+ bytes, asked for were [0-9]+; use another server"
SENT = f"StoreError: .* sent [0-9]+ of [0-9]+ bytes, in 3 tries .*{ENDPOINT}"
RANGE = "StoreError: .* answered with range '.*', asked for were bytes [0-9]+-[0-9]+; use another server"

FAULTS: dict[str, Fault] = {
    "400": _refused(_status(400), DUE.format(400), hub="answered 400 .*; (check the address|run the same command)"),
    "401": _closed(401),
    "403": _closed(403),
    "404": _gone(404),
    "410": _gone(410),
    "413": _refused(_status(413), DUE.format(413)),
    "418": _refused(_status(418), DUE.format(418)),
    **{str(code): _tried_again(code) for code in (429, 500, 502, 503, 504)},
    "503 wait": _tried_again(503, Retry_After="3600"),
    "reset": _passes(lambda it: it.hang_up(), "gave no answer .RemoteDisconnected.*"),
    "lost": _passes(done(lambda it: it.hang_up()), "gave no answer .RemoteDisconnected.*"),
    "lost 500": _passes(done(_status(500)), "answered 500 .*", "answered 500 "),
    "cut": replace(_passes(cut, "broke off after [0-9]+ of [0-9]+ bytes"), put=HARMLESS),
    "stall": replace(_passes(stall, "gave no answer .TimeoutError: timed out.", slow=True), put=HARMLESS),
    "drip": replace(_passes(drip, "gave no answer .TimeoutError: timed out.", slow=True), put=UNTRIED),
    "page": _refused(
        done(lambda it: it.send(_answer(200, PAGE, Content_Type="text/html; charset=utf-8", ETag='"x"'))),
        "StoreError: .* answered 200 OK with a web page, not a file; check the address",
        bucket=f"StoreError: .* came as a web page, not a file; check the endpoint|{WHOLE}", put=HARMLESS,
    ),
    "page as data": _longer(lambda data: PAGE),
    "wrong length": _longer(lambda data: data + b"more"),
    "emptied": Fault(lambda it: _other_file(it, lambda data: b""), UNSEEN, REFUSED, RANGES, bucket=WHOLE),
    "empty": Fault(_body(lambda data: b""), UNSEEN, REFUSED, FEWER, bucket=SENT, but=PART),
    "short": Fault(_body(half), UNSEEN, REFUSED, FEWER, bucket=SENT, but=PART),
    "flip": Fault(_body(flipped), UNSEEN, UNSEEN),
    "wrong bytes": Fault(lambda it: it.send(it.part(it.truth(whole=True), shift=1)), UNSEEN, UNSEEN),
    "bare": Fault(
        lambda it: it.send(replace(it.truth(), headers={})), HARMLESS, REFUSED, RANGE,
        bucket=f"StoreError: .* gave no usable answer .*, in 3 tries .*{ENDPOINT}", but=PART,
    ),
    "other range": Fault(
        other_range, REFUSED, REFUSED, f"{RANGE}|{DUE.format(206)}",
        bucket=f"answered with other bytes than were asked for.*{ENDPOINT}", but={"bucket whole": UNSEEN},
    ),
    "no ranges": Fault(lambda it: it.send(it.truth(whole=True)), HARMLESS, REFUSED, RANGES, bucket=WHOLE),
    "encoded": Fault(
        _body(lambda data: b"\x1f\x8b", **{"Content-Encoding": "gzip"}), REFUSED, REFUSED,
        "StoreError: .* came encoded as gzip, asked for was identity; switch its compression off for stores",
        bucket=f"{SENT}|gave no usable answer .Decode.*{ENDPOINT}", but={"bucket whole": UNSEEN} | PART, put=UNTRIED,
    ),
    "elsewhere": Fault(
        _to(lambda it: f"{it.server.elsewhere}{it.path.partition('?')[0]}?token={HIDDEN}", 307), REFUSED, REFUSED,
        f"StoreError: .* {TRUST.format('http://127.0.0.1:[0-9]+/rich.kd/[a-z0-9/.-]+')}", put=REFUSED,
        hub="StoreError: .* answered 404 .*; run the same command again later",
        bucket=f"DamagedError: .* is missing; push the store again|answered 307 .*{ENDPOINT}",
        but={"bucket whole": ABSENT},
    ),
    "loop": replace(
        _points(_to(lambda it: it.path), "http://127.0.0.1:[0-9]+/rich.kd/[a-z0-9/.-]+"),
        hub="StoreError: .* the hub points on and on, 4 times; check the endpoint",
        but=AT_BUCKET | {"hub whole": OUTLASTED, "hub part": OUTLASTED},
    ),
    "to ftp": _points(_to(lambda it: f"ftp://elsewhere/file?{HIDDEN}"), "ftp://elsewhere/file"),
    "to no port": _points(_to(lambda it: f"http://127.0.0.1:99999999/?{HIDDEN}"), "http://127.0.0.1:99999999/"),
    "to a user": _points(_to(lambda it: f"http://{HIDDEN}@127.0.0.1:9/?{HIDDEN}"), "http://127.0.0.1:9/"),
    "endless": Fault(
        endless, REFUSED, REFUSED, LARGE.format("sends more than"), large=True, put=UNTRIED,
        bucket=f"StoreError: .* gave no usable answer .*, in 3 tries .*{ENDPOINT}", but=AT_BUCKET,
    ),
    "huge": Fault(
        lambda it: endless(it, Content_Length=str(10**12)), REFUSED, REFUSED, LARGE.format("announces"), large=True,
        put=UNTRIED,
        bucket=f"FormatError: .* has 1000000000000 bytes, allowed are [0-9]+; .*: fetch the store again|{WHOLE}",
    ),
    "endless error": replace(
        _gone(404), spoil=lambda it: endless(it, 404, Content_Length=str(10**12)), large=True, put=UNTRIED,
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
