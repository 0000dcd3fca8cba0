"""A README for a sealed store: what it is, where it came from, how to use it. Markdown from the store alone.

Text that came with the store is data: it is escaped, never stands in a command, and addresses and absolute paths that a
writer's settings may carry are left out. Equal stores with equal cards give equal bytes.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.places.folder import Folder
from kdcache.store.inspection import describe_store
from kdcache.store.lineage import chain_of, render
from kdcache.store.seals import PIN
from kdcache.store.store import Store

README, CROISSANT = "README.md", "croissant.json"
CROISSANT_MARK = b"read by kdcache or by its docs/format.md"  # words of every description that `croissant` writes
MARK = "<!-- written by kdcache card; edit the card with kdcache seal --name --license --notes, and run it again -->"
PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
RISKY = re.compile(r"([\\`*_{}\[\]<>#|~&!@$]|(?<=www)\.|:(?=//))")
PRIVATE = re.compile(r"""(?<![\w.])(?:~|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*:/)?[/\\][^\s,;'")\]}]+""")
NOTE_LINES, SHOWN = 500, 400  # of notes, and characters of any other text
LICENSES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "isc", "zlib", "unlicense", "odbl",
)  # fmt: skip  # names that Hugging Face knows; any other is `other` there


@dataclass(frozen=True)
class CardFacts:
    """What both the README and the Croissant record say of a sealed store."""

    name: str
    license: str
    content_id: str
    described: dict[str, Any]
    shards: int
    bytes: int

    @property
    def pin(self) -> str:
        return self.content_id[:PIN]


def card_facts(store: Store) -> CardFacts:
    """Raises InvalidInputError for a store without a seal: there is no content id to speak of."""
    if store.content_id is None:
        raise InvalidInputError(f"{store.folder.root} is not sealed; run: kdcache seal {store.folder.root}")
    described = describe_store(store)
    shards = [s for segment in store.segments for each in segment.commits().values() for s in each.shards.values()]
    return CardFacts(
        name=_line(store.card.name)
        or public(f"Soft labels of {described['teacher']} on {described['data'] or 'data'}"),
        license=_line(store.card.license),
        content_id=store.content_id,
        described=described,
        shards=len(shards),
        bytes=sum(shard.size for shard in shards),
    )


def readme(store: Store) -> str:
    """Markdown with YAML in front of it, as Hugging Face reads it."""
    facts = card_facts(store)
    parts = [_front(facts), MARK, f"# {escape(facts.name)}", _intro(facts), _table(_rows(store, facts))]
    if store.card.notes.strip():
        parts += ["## Notes", _quoted(store.card.notes)]
    parts += ["## Use it", _usage(store, facts), "## What this shows, and what not", _trust(facts)]
    return "\n\n".join(parts) + "\n"


def write_card(store: Store, out: str | Path | None, texts: dict[str, str]) -> list[str]:
    """Write files beside the store, or in the folder `out`; returns their paths.

    Raises InvalidInputError for a file that somebody wrote by hand, and for a store that cannot be written to.
    """
    target = store.folder if out is None else Folder(out)
    if not isinstance(target, Folder):
        raise InvalidInputError(f"{store.folder.root} is read only; give a folder: --out FOLDER")
    for name in texts:
        standing = target.get(name)
        if standing is not None and not any(mark in standing for mark in (MARK.encode(), CROISSANT_MARK)):
            raise InvalidInputError(
                f"{target.path(name)} was not written by kdcache card; move it, or use --out FOLDER"
            )
    for name, text in texts.items():
        target.replace(name, text.encode())
    return [str(target.path(name)) for name in texts]


def escape(text: str, *, everything: bool = False) -> str:
    """Text as one line of Markdown that shows as itself: no markup, no links, no HTML, no control characters."""
    return (PUNCTUATION if everything else RISKY).sub(r"\\\1", _line(text))


def _line(text: str) -> str:
    """Printable characters of a text as one line; the rest is spaces."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def public(value: Any) -> str:
    """A value of the manifest as text, without absolute paths and addresses that a writer's settings may hold."""
    text = PRIVATE.sub("(path)", _line(value if isinstance(value, str) else ", ".join(map(str, value)) or "none"))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _front(facts: CardFacts) -> str:
    known = facts.license.lower() in LICENSES
    lines = ["---", f"pretty_name: {json.dumps(facts.name, ensure_ascii=False)}"]
    if facts.license:
        lines.append(f"license: {facts.license.lower() if known else 'other'}")
    if facts.license and not known:
        lines.append(f"license_name: {json.dumps(facts.license, ensure_ascii=False)}")
    return "\n".join(
        [*lines, "tags:", *(f"- {tag}" for tag in ("kdcache", "knowledge-distillation", "soft-labels")), "---"]
    )


def _intro(facts: CardFacts) -> str:
    told = facts.described
    return (
        f"A teacher's soft labels for {told['rows']:,} samples in {_count(told['views'])} augmented views each, for "
        "knowledge distillation without the teacher: a kdcache store of format 1, which is plain Zarr v3. Views are "
        "not stored: kdcache draws them again from the data set, and proves by fingerprints that they are those that "
        "the teacher saw."
    )


def _count(views: str) -> int:
    return sum(len(ViewSpan.parse(span)) for span in views.split(", "))


def _rows(store: Store, facts: CardFacts) -> dict[str, str]:
    told, identity = facts.described, store.identity
    return {
        "content id": f"`{facts.content_id}`",
        "licence": escape(facts.license) or "not stated",
        "teacher": escape(public(told["teacher"])),
        "teacher weights": f"sha256 {escape(public(identity.teacher.weights))}",
        "teacher precision": told["teacher precision"],
        "masked classes": escape(public(told["masked classes"])),
        "mean, std": f"{escape(public(told['mean']))}; {escape(public(told['std']))}",
        "taught by": escape(public([render(each) for each in chain_of(store)])),
        "data set": f"{escape(public(told['data'] or 'not named'))}, {told['rows']:,} rows",
        "data set digests": escape(public(f"ids {identity.dataset.ids}, labels {identity.dataset.labels}")),
        "classes": f"{told['classes']:,}",
        "views": told["views"],
        "transform": escape(public(told["transform"])),
        "mixing": told["mix"],
        "seed": str(told["seed"]),
        "order": told["order"],
        "soft labels": told["soft labels"],
        "features, head": f"{told['features'] or 'none'}, {'kept' if told['head'] else 'none'}",
        "size": f"{facts.bytes:,} bytes of soft labels in {facts.shards:,} files",
        "made with": escape(public(told["made with"])),
        "made on": escape(public(told["made on"])),
        "decoder": escape(public(told["decoder"] or "none")),
    }


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())])


def _quoted(notes: str) -> str:
    """People's notes as a quotation, line by line."""
    lines = notes.splitlines()
    shown = [f"> {escape(line, everything=True)}".rstrip() for line in lines[:NOTE_LINES]]
    return "\n".join([*shown, *(["> ..."] if len(lines) > NOTE_LINES else [])])


def _usage(store: Store, facts: CardFacts) -> str:
    pinned, own = f'"$STORE@{facts.pin}"', bool(store.identity.plan.transform.text)
    naming = " --transform FILE.py:CALLABLE" if own else ""
    return "\n".join(
        [
            "With kdcache installed, STORE the folder of this README or its address on a web server, and DATA the data",
            "set, as in `folder:/data/train`"
            + (", and FILE.py:CALLABLE the transform, which is code:" if own else ":"),
            "",
            "```",
            f"kdcache verify {pinned}                # sha256 of every file",
            f'kdcache verify {pinned} --data "$DATA"{naming}  # and whether your pictures are the teacher\'s',
            f"kdcache inspect {pinned} --rows 5",
            f'kdcache train runs/student --student torchvision:resnet18 --data "$DATA"{naming} \\',
            f"    --store {pinned} --epochs {_count(facts.described['views'])}",
            "```",
        ]
    )


def _trust(facts: CardFacts) -> str:
    return (
        f"`@{facts.pin}` opens what the seal of this content id lists and nothing else; `kdcache verify` compares "
        "every byte with it. That shows that the store is whole and the one that was spoken of, not who made it. Name, "
        "licence, notes and provenance are outside the content id. A store is data: nothing in it is run."
    )
