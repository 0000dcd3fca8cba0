"""A README for a sealed store: Markdown from the store alone, on its contents, its origin and its use.

Text that came with the store is data: it is escaped and never stands in a command. Addresses and absolute paths, which
a writer's settings may hold, are left out. Equal stores with equal cards give equal bytes.
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
from kdcache.store.lineage import chain_of
from kdcache.store.lineage_text import render
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
    """Facts of a sealed store that both the README and the Croissant record state."""

    name: str
    license: str
    content_id: str
    description: dict[str, Any]
    shards: int
    bytes: int

    @property
    def pin(self) -> str:
        return self.content_id[:PIN]


def card_facts(store: Store) -> CardFacts:
    """The facts of a store. Raises InvalidInputError for a store without a seal, which has no content id."""
    if store.content_id is None:
        raise InvalidInputError(f"{store.folder.root} is not sealed; run: kdcache seal {store.folder.root}")
    description = describe_store(store)
    shards = [
        shard
        for segment in store.segments
        for commit in segment.commits().values()
        for name, shard in commit.shards.items()
        if name not in segment.left_out
    ]
    return CardFacts(
        name=_line(store.card.name)
        or public(f"Soft labels of {description['teacher']} on {description['data'] or 'data'}"),
        license=_line(store.card.license),
        content_id=store.content_id,
        description=description,
        shards=len(shards),
        bytes=sum(shard.size for shard in shards),
    )


def readme(store: Store) -> str:
    """The README: Markdown behind front matter in YAML, as Hugging Face reads it. Raises InvalidInputError for a store
    without a seal."""
    facts = card_facts(store)
    parts = [_front_matter(facts), MARK, f"# {escape(facts.name)}", _intro(facts), _table(_rows(store, facts))]
    if store.card.notes.strip():
        parts += ["## Notes", _quote(store.card.notes)]
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
        current = target.get(name)
        if current is not None and not any(mark in current for mark in (MARK.encode(), CROISSANT_MARK)):
            raise InvalidInputError(
                f"{target.path(name)} was not written by kdcache card; move it, or use --out FOLDER"
            )
    for name, text in texts.items():
        target.replace(name, text.encode())
    return [str(target.path(name)) for name in texts]


def escape(text: str, *, everything: bool = False) -> str:
    """Text as one line of Markdown that renders as the text: no markup, links, HTML or control characters."""
    return (PUNCTUATION if everything else RISKY).sub(r"\\\1", _line(text))


def _line(text: str) -> str:
    """A text as one line; characters that are not printable become spaces."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def public(value: Any) -> str:
    """A value of the manifest as text, without the absolute paths and addresses that a writer's settings may hold."""
    text = PRIVATE.sub("(path)", _line(value if isinstance(value, str) else ", ".join(map(str, value)) or "none"))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _front_matter(facts: CardFacts) -> str:
    is_known = facts.license.lower() in LICENSES
    lines = ["---", f"pretty_name: {json.dumps(facts.name, ensure_ascii=False)}"]
    if facts.license:
        lines.append(f"license: {facts.license.lower() if is_known else 'other'}")
    if facts.license and not is_known:
        lines.append(f"license_name: {json.dumps(facts.license, ensure_ascii=False)}")
    return "\n".join(
        [*lines, "tags:", *(f"- {tag}" for tag in ("kdcache", "knowledge-distillation", "soft-labels")), "---"]
    )


def _intro(facts: CardFacts) -> str:
    fields = facts.description
    return (
        f"A teacher's soft labels for {fields['rows']:,} samples in {_count(fields['views'])} augmented views each, "
        "for knowledge distillation without the teacher: a kdcache store of format 1, which is plain Zarr v3. Views "
        "are not stored: kdcache draws them again from the data set, and proves by fingerprints that they are those "
        "that the teacher saw."
    )


def _count(views: str) -> int:
    return sum(len(ViewSpan.parse(span)) for span in views.split(", "))


def _rows(store: Store, facts: CardFacts) -> dict[str, str]:
    fields, identity = facts.description, store.identity
    return {
        "content id": f"`{facts.content_id}`",
        "licence": escape(facts.license) or "not stated",
        "teacher": escape(public(fields["teacher"])),
        "teacher weights": escape(public(identity.teacher.weights_text())),
        "teacher precision": fields["teacher_precision"],
        "masked classes": escape(public(fields["masked_classes"])),
        **{
            name.replace("_", " "): escape(fields[name])
            for name in ("teacher_answers", "class_map", "subclasses")
            if name in fields
        },
        "mean, std": f"{escape(public(fields['mean']))}; {escape(public(fields['std']))}",
        "taught by": escape(public([render(ancestor) for ancestor in chain_of(store)])),
        "data set": f"{escape(public(fields['data'] or 'not named'))}, {fields['rows']:,} rows"
        + (f", {fields['struck']:,} samples without an answer" if fields["struck"] else ""),
        "data set digests": escape(public(f"ids {identity.dataset.ids}, labels {identity.dataset.labels}")),
        **({"samples are known by": f"their {fields['contents']}"} if fields["contents"] != "none" else {}),
        **({"tokens of a text": f"{fields['sequence']:,}"} if fields["sequence"] > 1 else {}),
        "classes": f"{fields['classes']:,}",
        "views": fields["views"],
        "transform": escape(public(fields["transform"])),
        "mixing": fields["mix"],
        "seed": str(fields["seed"]),
        "order": fields["order"],
        "soft labels": fields["soft_labels"],
        "features, head": f"{fields['features'] or 'none'}, {'kept' if fields['head'] else 'none'}",
        **({"taps": escape(", ".join(fields["taps"]))} if fields["taps"] else {}),
        "size": f"{facts.bytes:,} bytes of soft labels in {facts.shards:,} files",
        "made with": escape(public(fields["made_with"])),
        "made on": escape(public(fields["made_on"])),
        "decoder": escape(public(fields["decoder"] or "none")),
    }


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())])


def _quote(notes: str) -> str:
    """People's notes as a quotation, line by line."""
    lines = notes.splitlines()
    quotation = [f"> {escape(line, everything=True)}".rstrip() for line in lines[:NOTE_LINES]]
    return "\n".join([*quotation, *(["> ..."] if len(lines) > NOTE_LINES else [])])


def _usage(store: Store, facts: CardFacts) -> str:
    address, needs_transform = f'"$STORE@{facts.pin}"', bool(store.identity.plan.transform.text)
    transform_flag = " --transform FILE.py:CALLABLE" if needs_transform else ""
    return "\n".join(
        [
            "With kdcache installed, STORE the folder of this README or its address on a web server, and DATA the data",
            "set, as in `folder:/data/train`"
            + (", and FILE.py:CALLABLE the transform, which is code:" if needs_transform else ":"),
            "",
            "```",
            f"kdcache verify {address}                # sha256 of every file",
            f'kdcache verify {address} --data "$DATA"{transform_flag}  # and whether your pictures are the teacher\'s',
            f"kdcache inspect {address} --rows 5",
            f'kdcache train runs/student --student torchvision:resnet18 --data "$DATA"{transform_flag} \\',
            f"    --store {address} --epochs {_count(facts.description['views'])}",
            "```",
        ]
    )


def _trust(facts: CardFacts) -> str:
    return (
        f"`@{facts.pin}` opens what the seal of this content id lists and nothing else; `kdcache verify` compares "
        "every byte with it. That shows that the store is whole and the one that was spoken of, not who made it. Name, "
        "licence, notes and provenance are outside the content id. A store is data: nothing in it is run."
    )
