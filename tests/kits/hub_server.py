"""The two servers of the stand-in hub: what huggingface-hub and kdcache ask them, and how they answer."""

import base64
import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.kits.http_answers import Answer
from tests.kits.http_server import Handler, Server, Spoiling

TOKEN, OTHER = "hf_secretsecretsecret", "hf_readsonly"
PAGE = 40  # entries of one answer to a listing
API = re.compile(r"/api/datasets/([^/]+/[^/]+)/(tree|preupload|commit|revision)/([^/]+)")
RESOLVE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
BATCH = re.compile(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch")


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
    lists_at: str = ""  # the server that the pages of a listing but the first are said to be on
    expired: int = 0  # addresses of the second server that still do not hold


class HubServer(Server):
    """One of the two; both know the same, and are spoiled by the same list."""

    def __init__(self, state: State, name: str, handler: "type[HubHandler]", spoiling: Spoiling) -> None:
        super().__init__(handler, spoiling, name)
        self.hub = state
        self.second_url = ""


class HubHandler(Handler):
    server: HubServer

    def note(self) -> None:
        token = bool(self.headers.get("Authorization"))
        self.server.hub.asked.append(Asked(self.server.name, self.command, self.path, token, self.span))


def say(record: Any, **headers: str) -> Answer:
    return Answer(200, {"Content-Type": "application/json", **headers}, json.dumps(record).encode())


def no(status: int, code: str = "", message: str = "") -> Answer:
    return Answer(status, {"X-Error-Code": code, "X-Error-Message": message})


class Main(HubHandler):
    """The hub: repositories, small files, and addresses of large ones."""

    def truth(self, *, whole: bool = False) -> Answer:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", TOKEN, OTHER):
            return no(401, message="Invalid credentials in Authorization header")
        path = unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            return self.create(json.loads(self.given), token)
        for pattern, action in ((API, self.api), (RESOLVE, self.resolve), (BATCH, self.batch)):
            if found := pattern.fullmatch(path) or (pattern is API and pattern.match(path)):
                repository = self.server.hub.repositories.get(found[1])
                if repository is None or (repository.private and not token):
                    return no(404 if token else 401, "RepoNotFound", "Repository not found")
                if repository.gated:
                    return no(403, "GatedRepo", "Access is restricted")
                if self.command == "POST" and token != TOKEN:
                    return no(403, message="You don't have the rights")
                return action(repository, found.groups())
        return no(404)

    def create(self, wanted: Any, token: str) -> Answer:
        name = f"{wanted['organization']}/{wanted['name']}"
        if token != TOKEN:
            return no(403, message="You don't have the rights")
        if name in self.server.hub.repositories:
            return no(409, message="You already created this repository")
        assert wanted["type"] == "dataset"
        private = wanted.get("private") is True or wanted.get("visibility") == "private"
        self.server.hub.repositories[name] = made = Repository(private)
        made.add({".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n"})
        return say({"url": f"{self.server.url}/datasets/{name}"})

    def files_at(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return repository.commits[-1]
        return next((each for each in repository.commits if each[0] == revision), None)

    def api(self, repository: Repository, found: Any) -> Answer:
        name, action, revision = found
        at = self.files_at(repository, revision)
        if at is None:
            return no(404, "RevisionNotFound", "Invalid rev id")
        if action == "tree":
            return self.tree(repository, at[1])
        if action == "revision":  # which huggingface-hub 0.30 to 0.35 asks before it uploads
            return say({"id": name, "xetEnabled": False, "siblings": []})
        if action == "preupload":
            return self.preupload(json.loads(self.given))
        return self.commit(repository, name, [json.loads(line) for line in self.given.splitlines()])

    def tree(self, repository: Repository, files: dict[str, bytes]) -> Answer:
        query = parse_qs(urlsplit(self.path).query)
        start = int(query.get("cursor", ["0"])[0])
        names = sorted(files)[start : start + PAGE]
        server = self.server.hub.lists_at or self.server.url
        link = f'<{server}{urlsplit(self.path).path}?recursive=1&cursor={start + PAGE}>; rel="next"'
        more = {"Link": link} if start + PAGE < len(files) else {}
        return say([self.described(repository, name, files[name]) for name in names], **more)

    def described(self, repository: Repository, name: str, data: bytes) -> dict[str, Any]:
        record: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git(data)}
        if name in repository.large:
            sha256 = hashlib.sha256(data).hexdigest()
            return {**record, "oid": "0" * 40, "lfs": {"oid": sha256, "size": len(data), "pointerSize": 134}}
        return record

    def preupload(self, wanted: Any) -> Answer:
        answers = []
        for each in wanted["files"]:
            sample = base64.b64decode(each["sample"])
            mode = "lfs" if not sample.isascii() or b"\0" in sample or each["size"] > 10**6 else "regular"
            ignored = any(each["path"].endswith(name) for name in self.server.hub.ignored)
            answers.append({"path": each["path"], "uploadMode": mode, "shouldIgnore": ignored, "oid": None})
        return say({"files": answers})

    def batch(self, repository: Repository, found: Any) -> Answer:
        objects = []
        for each in json.loads(self.given)["objects"]:
            record = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.server.hub.objects:
                href = f"{self.server.second_url}/upload/{each['oid']}?X-Signature=hidden"
                record["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(record)
        return say({"objects": objects, "transfer": "basic"})

    def commit(self, repository: Repository, name: str, lines: list[Any]) -> Answer:
        files, large = {}, set()
        for line in lines:
            value = line["value"]
            if value.get("parentCommit") not in (None, repository.commits[-1][0]):
                return no(412, message="A commit has happened since")
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.hub.objects[value["oid"]]
                large.add(value["path"])
        repository.large |= large
        said = repository.add(files)
        return say({"commitUrl": f"{self.server.url}/datasets/{name}/commit/{said}", "commitOid": said})

    def resolve(self, repository: Repository, found: Any) -> Answer:
        _, revision, name = found
        at = self.files_at(repository, revision)
        if at is None:
            return no(404, "RevisionNotFound", "Invalid rev id")
        commit, files = at
        if name not in files:
            return no(404, "EntryNotFound", "Entry not found")
        data = files[name]
        if name not in repository.large:
            return Answer(200, {"X-Repo-Commit": commit}, data)
        sha256 = hashlib.sha256(data).hexdigest()
        where = f"{self.server.second_url}/file/{sha256}?X-Signature=hidden&Expires={time.time() + 60:.0f}"
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{sha256}"'}
        return Answer(302, {"Location": where, "X-Repo-Commit": commit, **linked})


class Second(HubHandler):
    """Objects by their sha256; whoever has the address may read or write."""

    def truth(self, *, whole: bool = False) -> Answer:
        hub, (what, sha256) = self.server.hub, self.key.split("/")
        if "X-Signature=hidden" not in self.path:
            return no(403)
        if what == "upload":
            if hashlib.sha256(self.given).hexdigest() != sha256:
                return no(400)
            hub.objects[sha256] = self.given
            return Answer(200, {})
        if hub.expired > 0:
            hub.expired -= 1
            return no(403)
        file = Answer(200, {}, hub.objects[sha256])
        return file if whole else self.part(file)


def git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
