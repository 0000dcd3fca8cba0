"""docs/troubleshooting.md is made of situations that tests meet and of the words of tests/doors/guide.toml."""

import importlib
import re
import tomllib
from dataclasses import dataclass
from functools import cache

from tests.kits.doors import PAGE, ROOT, Situation, situation_of

WORDS = ROOT / "tests/doors/guide.toml"
BEGIN, END = "<!-- situations: made by python -m tests.doors -->\n", "<!-- end of situations -->\n"


@dataclass(frozen=True)
class Message:
    """The words for one situation: texts that are `seen`, any of them, where `...` stands for any text; why, and the
    next step."""

    situation: str
    title: str
    seen: tuple[str, ...]
    why: str
    next: str

    def is_seen(self, printed: str) -> bool:
        """True where one of the texts stands in what commands printed."""
        plain = " ".join(printed.replace('\\"', '"').split())
        return any(re.search(".*".join(map(re.escape, text.split("..."))), plain) for text in self.seen)

    def section(self, situation: Situation) -> str:
        """The message as a section of the page."""
        seen = "\n".join(self.seen)
        code = f"Exit code {situation.exit_code}" if situation.exit_code else "A note; exit code 0"
        ending = f"{code}. On disk: {situation.left}."
        return f"### {self.title}\n\n```text\n{seen}\n```\n\n{self.why}\n\n**Do this:** {self.next} *{ending}*\n\n"


@dataclass(frozen=True)
class Group:
    """A part of the page: its messages, and the situations that end well without one."""

    title: str
    messages: tuple[Message, ...]
    passes: tuple[str, ...]


@cache
def groups() -> tuple[Group, ...]:
    """The parts of the page, in order."""
    return tuple(
        Group(
            group["title"],
            tuple(Message(**{**words, "seen": tuple(words["seen"])}) for words in group.get("message", ())),
            tuple(group.get("passes", ())),
        )
        for group in tomllib.loads(WORDS.read_text())["group"]
    )


def message_of(situation: Situation) -> Message | None:
    """The words for a situation; None where it ends well without a message."""
    messages = (message for group in groups() for message in group.messages)
    return next((message for message in messages if message.situation == situation.situation), None)


def situations() -> list[Situation]:
    """All situations that tests meet, by the file that tests them."""
    met = []
    for path in sorted((ROOT / "tests/doors").glob("test_*.py")):
        module = importlib.import_module(f"tests.doors.{path.stem}")
        rows = (situation_of(iter(getattr(value, "pytestmark", ()))) for value in vars(module).values())
        met += [row for row in rows if row is not None]
    return met


def guide() -> str:
    """The text between the page's marks."""
    by_name = {situation.situation: situation for situation in situations()}
    parts = []
    for group in groups():
        parts.append(f"## {group.title}\n\n")
        parts += [message.section(by_name[message.situation]) for message in group.messages]
        if group.passes:
            parts.append("These end well:\n\n| situation | you get |\n|---|---|\n")
            parts += [f"| {name} | {by_name[name].sees} |\n" for name in group.passes]
            parts.append("\n")
    return "\n" + "".join(parts)


def page_with(text: str) -> str:
    """The page with this text between its marks."""
    page = PAGE.read_text()
    start, stop = page.index(BEGIN) + len(BEGIN), page.index(END)
    return page[:start] + text + page[stop:]
