"""The two servers of the stand-in hub: what huggingface-hub and kdcache ask them, and how they answer."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN, OTHER = "hf_secretsecretsecret", "hf_readsonly"
PAGE = 40  # entries of one answer to a listing
EVER = 10**9
API = re.compile(r"/api/datasets/([^/]+/[^/]+)/(tree|preupload|commit)/([^/]+)")
RESOLVE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
BATCH = re.compile(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
LEADS = {"elsewhere": "ftp://elsewhere/file", "port": "http://127.0.0.1:99999999/file", "user": "http://me@127.0.0.1/"}
RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")


@dataclass
class Repository:
    """Path -> bytes at each commit, the newest last; `large` paths lie on the second server."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    large: set[str] = field(default_factory=set)
    gated: bool = False

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def add(self, files: dict[str, bytes]) -> str:
        everything = {**(self.files if self.commits else {}), **files}
        said = hashlib.sha1(repr((len(self.commits), sorted(everything))).encode()).hexdigest()
        self.commits.append((said, everything))
        return said


@dataclass(frozen=True)
class Asked:
    """One request: which server, what, whether the token came with it."""

    server: str
    method: str
    path: str
    token: bool
    span: str


@dataclass
class State:
    """What both servers know."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)
    expired: int = 0  # addresses of the second server that still do not hold


class Server(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 64

    def __init__(
        self, state: State, name: str, handler: type[BaseHTTPRequestHandler], fault: Callable[[str], str]
    ) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.hub, self.name, self.fault = state, name, fault
        self.main_url = self.second_url = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has seen enough closes its connection."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *given: Any) -> None:
        """Nothing on the terminal."""

    def answer(self, status: int, body: bytes = b"", *, sent: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.get("Length", str(len(body))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])
        self.close_connection = self.close_connection or sent is not None

    def say(self, record: Any, **headers: str) -> None:
        self.answer(200, json.dumps(record).encode(), Content_Type="application/json", **headers)

    def no(self, status: int, code: str = "", message: str = "") -> None:
        self.answer(status, X_Error_Code=code, X_Error_Message=message)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def serve(self) -> None:
        hub, token = self.server.hub, self.headers.get("Authorization", "")
        given = self.body()
        span = self.headers.get("Range", "")
        hub.asked.append(Asked(self.server.name, self.command, self.path, bool(token), span))
        fault = self.server.fault(f"{self.server.name} {self.command} {unquote(self.path)}")
        if fault.isdecimal():
            self.answer(int(fault), b"no", X_Error_Message="the hub says no")
        elif fault == "reset":
            self.close_connection = True
            self.connection.close()
        elif fault == "lost":  # done, and the answer gets lost
            self.wfile = type("Nowhere", (), {"write": lambda *given: 0, "flush": lambda *given: None})()
            self.handle_one(given)
            self.close_connection = True
            self.connection.close()
        else:
            self.spoiled = fault
            self.handle_one(given)

    do_GET = do_HEAD = do_POST = do_PUT = serve  # noqa: N815

    def handle_one(self, given: bytes) -> None:
        raise NotImplementedError


class Main(Handler):
    def handle_one(self, given: bytes) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", TOKEN, OTHER):
            self.no(401, message="Invalid credentials in Authorization header")
            return
        path = unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            self.create(json.loads(given), token)
            return
        for pattern, action in ((API, self.api), (RESOLVE, self.resolve), (BATCH, self.batch)):
            if found := pattern.fullmatch(path) or (pattern is API and pattern.match(path)):
                repository = self.server.hub.repositories.get(found[1])
                if repository is None or (repository.private and not token):
                    self.no(404 if token else 401, "RepoNotFound", "Repository not found")
                elif repository.gated:
                    self.no(403, "GatedRepo", "Access is restricted")
                elif self.command == "POST" and token != TOKEN:
                    self.no(403, message="You don't have the rights")
                else:
                    action(repository, found.groups(), given)
                return
        self.no(404)

    def create(self, wanted: Any, token: str) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if token != TOKEN:
            self.no(403, message="You don't have the rights")
        elif name in self.server.hub.repositories:
            self.no(409, message="You already created this repository")
        else:
            assert wanted["type"] == "dataset"
            private = wanted.get("private") is True or wanted.get("visibility") == "private"
            self.server.hub.repositories[name] = made = Repository(private)
            made.add({".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n"})
            self.say({"url": f"{self.server.url}/datasets/{name}"})

    def files_at(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return repository.commits[-1]
        return next((each for each in repository.commits if each[0] == revision), None)

    def api(self, repository: Repository, found: Any, given: bytes) -> None:
        name, action, revision = found
        at = self.files_at(repository, revision)
        if at is None:
            self.no(404, "RevisionNotFound", "Invalid rev id")
        elif action == "tree":
            self.tree(repository, at[1])
        elif action == "preupload":
            self.preupload(repository, json.loads(given))
        else:
            self.commit(repository, name, [json.loads(line) for line in given.splitlines()])

    def tree(self, repository: Repository, files: dict[str, bytes]) -> None:
        query = parse_qs(urlsplit(self.path).query)
        start = int(query.get("cursor", ["0"])[0])
        names = sorted(files)[start : start + PAGE]
        link = f'<{self.server.url}{urlsplit(self.path).path}?recursive=1&cursor={start + PAGE}>; rel="next"'
        more = {"Link": link} if start + PAGE < len(files) else {}
        self.say([self.described(repository, name, files[name]) for name in names], **more)

    def described(self, repository: Repository, name: str, data: bytes) -> dict[str, Any]:
        record: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git(data)}
        if name in repository.large:
            sha256 = hashlib.sha256(data).hexdigest()
            return {**record, "oid": "0" * 40, "lfs": {"oid": sha256, "size": len(data), "pointerSize": 134}}
        return record

    def preupload(self, repository: Repository, wanted: Any) -> None:
        answers = []
        for each in wanted["files"]:
            sample = base64.b64decode(each["sample"])
            mode = "lfs" if not sample.isascii() or b"\0" in sample or each["size"] > 10**6 else "regular"
            ignored = any(each["path"].endswith(name) for name in self.server.hub.ignored)
            answers.append({"path": each["path"], "uploadMode": mode, "shouldIgnore": ignored, "oid": None})
        self.say({"files": answers})

    def batch(self, repository: Repository, found: Any, given: bytes) -> None:
        objects = []
        for each in json.loads(given)["objects"]:
            record = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.server.hub.objects:
                href = f"{self.server.second_url}/upload/{each['oid']}?X-Signature=hidden"
                record["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(record)
        self.say({"objects": objects, "transfer": "basic"})

    def commit(self, repository: Repository, name: str, lines: list[Any]) -> None:
        files, large = {}, set()
        for line in lines:
            value = line["value"]
            if value.get("parentCommit") not in (None, repository.commits[-1][0]):
                self.no(412, message="A commit has happened since")
                return
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.hub.objects[value["oid"]]
                large.add(value["path"])
        repository.large |= large
        said = repository.add(files)
        self.say({"commitUrl": f"{self.server.url}/datasets/{name}/commit/{said}", "commitOid": said})

    def resolve(self, repository: Repository, found: Any, given: bytes) -> None:
        _, revision, name = found
        at = self.files_at(repository, revision)
        if at is None:
            self.no(404, "RevisionNotFound", "Invalid rev id")
            return
        commit, files = at
        if name not in files:
            self.no(404, "EntryNotFound", "Entry not found")
            return
        data = files[name]
        if name not in repository.large:
            flipped = data[:-2] + bytes([data[-2] ^ 1]) + data[-1:] if self.spoiled == "flip" else data
            self.answer(200, flipped, sent=len(data) // 2 if self.spoiled == "cut" else None, X_Repo_Commit=commit)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        where = f"{self.server.second_url}/file/{sha256}?X-Signature=hidden&Expires={time.time() + 60:.0f}"
        where = LEADS.get(self.spoiled, where)
        linked = {"X_Linked_Size": str(len(data)), "X_Linked_Etag": f'"{sha256}"'}
        self.answer(302, Location=where, X_Repo_Commit=commit, **linked)


class Second(Handler):
    """Objects by their sha256; whoever has the address may read or write."""

    def handle_one(self, given: bytes) -> None:
        hub, (_, what, sha256) = self.server.hub, urlsplit(self.path).path.split("/")
        if "X-Signature=hidden" not in self.path:
            self.no(403)
        elif self.spoiled == "back":
            self.answer(302, Location=f"{self.server.main_url}/datasets/team/soft/resolve/main/rich.kd/zarr.json")
        elif what == "upload":
            if hashlib.sha256(given).hexdigest() != sha256:
                self.no(400)
            else:
                hub.objects[sha256] = given
                self.answer(200)
        elif hub.expired > 0:
            hub.expired -= 1
            self.no(403)
        else:
            self.show(hub.objects[sha256])

    def show(self, data: bytes) -> None:
        if self.spoiled == "flip":
            data = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
        found = RANGE.fullmatch(self.headers.get("Range", ""))
        cut = len(data) // 2 if self.spoiled == "cut" else None
        if found is None:
            self.answer(200, data, sent=cut)
        else:
            first, last = int(found[1]), min(int(found[2]), len(data) - 1)
            cut = None if cut is None else (last - first + 1) // 2
            said = f"bytes {first}-{last}/{len(data)}"
            self.answer(206, data[first : last + 1], sent=cut, Content_Range=said)


def git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
