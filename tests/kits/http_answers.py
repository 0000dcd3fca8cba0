"""Answers over HTTP, and the ways to spoil one. Each takes the handler of a request, which knows the right answer."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kits.http_server import Handler

    Spoil = Callable[[Handler], None]

PAGE = b"<!doctype html><title>It works</title>" + b"<p>not found</p>" * 100
HIDDEN = "hidden-word"  # of a redirect's query or user: no message shows it
WORDS = "words-of-the-server"  # of an error's body: a message of who reads shows none
MIB = 2**20


@dataclass(frozen=True)
class Answer:
    """Status, headers without the length, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


def status(code: int, **headers: str) -> "Spoil":
    """An error, with words that are nobody's business."""
    body = f"<Error><Code>Made</Code><Message>{WORDS}</Message></Error>".encode()
    named = {"Content-Type": "application/xml", "X-Error-Message": "the server says no"}
    return lambda it: it.send(
        Answer(code, named | {name.replace("_", "-"): value for name, value in headers.items()}, body)
    )


def redirect(where: "Callable[[Handler], str]", code: int = 302) -> "Spoil":
    return lambda it: it.send(Answer(code, {"Location": where(it)}))


def other_body(change: Callable[[bytes], bytes], **headers: str) -> "Spoil":
    """The right answer with another body, and the announced length agrees."""

    def spoil(it: "Handler") -> None:
        answer = it.truth()
        it.send(replace(answer, body=change(answer.body), headers={**answer.headers, **headers}))

    return spoil


def other_file(change: Callable[[bytes], bytes]) -> "Spoil":
    """As a server answers that has another file there."""

    def spoil(it: "Handler") -> None:
        whole = it.truth(whole=True)
        it.send(it.part(replace(whole, body=change(whole.body))))

    return spoil


def done(then: "Spoil") -> "Spoil":
    """It was done, and whoever asked for it hears something else."""

    def spoil(it: "Handler") -> None:
        it.truth()
        then(it)

    return spoil


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes(value ^ 16 for value in data[at : at + 1]) + data[at + 1 :]


def page(it: "Handler") -> None:
    it.send(Answer(200, {"Content-Type": "text/html; charset=utf-8", "ETag": '"x"'}, PAGE))


def bare(it: "Handler") -> None:
    """Without any header but the length."""
    it.send(replace(it.truth(), headers={}))


def no_ranges(it: "Handler") -> None:
    """The whole file, whatever was asked for."""
    it.send(it.truth(whole=True))


def wrong_bytes(it: "Handler") -> None:
    """Bytes from one further on, and the header names those that were asked for."""
    it.send(it.part(it.truth(whole=True), shift=1))


def other_range(it: "Handler") -> None:
    """Bytes from one further on, and the header says so."""
    whole = it.truth(whole=True)
    part, size = it.part(whole, shift=1), len(whole.body)
    first, last = it.asked_for(size) or (0, size - 1)
    headers = {**part.headers, "Content-Range": f"bytes {first + 1}-{last + 1}/{size}"}
    it.send(replace(part, status=206, headers=headers))


def cut(it: "Handler") -> None:
    """Half of the body, though all of it is announced."""
    answer = it.truth()
    it.send(replace(answer, body=half(answer.body)), announced=len(answer.body))


def reset(it: "Handler") -> None:
    it.close_connection = True
    it.connection.close()


def drip(it: "Handler") -> None:
    """An answer that begins, one byte at a time, and never ends."""
    it.close_connection = True
    for value in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"." * 10_000:
        it.wfile.write(bytes([value]))
        time.sleep(0.02)


def drip_body(it: "Handler") -> None:
    """Headers at once, then the body, whose length is known, one byte at a time."""
    answer = it.truth()
    it.send(replace(answer, body=b""), announced=len(answer.body))
    for value in answer.body:
        it.wfile.write(bytes([value]))
        time.sleep(0.02)
    it.close_connection = True


def drip_chunks(it: "Handler") -> None:
    """A body without a length, in chunks of one byte that each take many to send, and never an end."""
    answer = it.truth()
    it.send_response(answer.status)
    for name, value in answer.headers.items():
        it.send_header(name, value)
    it.send_header("Transfer-Encoding", "chunked")
    it.end_headers()
    it.close_connection = True
    for _ in range(10_000):
        it.wfile.write(b"1;" + b"x" * 1000 + b"\r\n \r\n")
        time.sleep(0.02)


def stall(it: "Handler") -> None:
    """Headers at once, then nothing until the other side hangs up."""
    answer = it.truth()
    it.send(replace(answer, body=b""), announced=len(answer.body))
    it.wfile.flush()
    it.connection.settimeout(30.0)
    it.connection.recv(1)
    it.close_connection = True


def endless(code: int = 200, announced: int | None = None) -> "Spoil":
    """A body that goes on for as long as it is read."""

    def spoil(it: "Handler") -> None:
        it.send_response(code)
        if announced is not None:
            it.send_header("Content-Length", str(announced))
        it.end_headers()
        it.close_connection = True
        while True:
            it.wfile.write(bytes(MIB))
            it.server.sent += MIB

    return spoil
