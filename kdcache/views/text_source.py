"""`text:` is a file of text, or a folder of them, as tokens: documents one after the other, each with the token that
ends a text, cut into texts of S tokens.

    text:book.txt                 .txt: one document a file, a line or a paragraph (`documents`)
    text:chats.jsonl              .jsonl: objects with `text`, or with `prompt` and `completion`

Tokens of a prompt are no labels; nor is the padding of the last text. A document that goes on in the next text goes on
in its labels too: the label of a text's last token is the first token of the next.
"""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from kdcache.errors import InvalidInputError
from kdcache.views.encoded_images import Opening, file_state, spec_name
from kdcache.views.label_numbers import NONE, listed
from kdcache.views.texts import DescribedTexts, require_sequence
from kdcache.views.tokenizer_file import TokenizerFile, open_tokenizer

SUFFIXES = (".txt", ".jsonl")
SEQUENCE = 256  # tokens of a text, by default
AT_ONCE = 2**22  # letters that are made into tokens together
ANSWERS = ("completion", "response")
Documents = Literal["file", "line", "paragraph"]


@dataclass(frozen=True)
class Document:
    """A document: its `file`, and `text` whose tokens count, after those of its `prompt`."""

    file: str
    text: str
    prompt: str = ""


@dataclass(frozen=True)
class File:
    """A file by its name in the data set, its path, and its size and time."""

    name: str
    path: Path
    state: str


@dataclass
class Stream:
    """The tokens of documents one after the other; `counts` says which may be a label, `places` where files begin."""

    tokens: "array[int]" = field(default_factory=lambda: array("i"))
    counts: bytearray = field(default_factory=bytearray)
    places: list[tuple[int, str]] = field(default_factory=list)

    def add(self, file: str, ids: Sequence[int], *, counts: bool) -> None:
        if not self.places or self.places[-1][1] != file:
            self.places.append((len(self.tokens), file))
        self.tokens.extend(ids)
        self.counts.extend(bytes([counts]) * len(ids))


def open_text(
    at: Opening, *, tokenizer: str = "", sequence: int = SEQUENCE, documents: Documents = "file", end: str = ""
) -> DescribedTexts:
    """The texts of a file or a folder. `tokenizer`: a file of the package tokenizers. `sequence`: S. `documents`: what
    of a .txt is one. `end`: the token that ends a document, see `TokenizerFile.end`. Raises InvalidInputError."""
    noun = f"text:{at.place}"
    if not tokenizer:
        raise InvalidInputError(f"data {noun}: name the tokenizer, --data-set tokenizer=FILE.json")
    if documents not in (names := ("file", "line", "paragraph")):
        raise InvalidInputError(f"data {noun}: documents is {documents!r}; choose {', '.join(names)}")
    if not at.labelled:
        raise InvalidInputError(f"data {noun}: the labels of texts are their own tokens; leave out --labels none")
    require_sequence(sequence, noun)
    codes = open_tokenizer(str(tokenizer))
    files = tuple(File(name, path, file_state(path)) for name, path in _files(at, noun))
    stream = _stream(files, documents, str(tokenizer), file_state(codes.path), str(end))
    count = len(stream.tokens)
    if count < 2:
        raise InvalidInputError(f"data {noun} has {count} tokens; give files with text")
    texts = -(-(count - 1) // sequence)  # the last token is a label alone
    tokens = np.full(texts * sequence + 1, codes.end(str(end)), dtype=np.int32)
    labels = np.full(texts * sequence + 1, NONE, dtype=np.int32)
    tokens[:count] = stream.tokens
    labels[:count] = np.where(np.frombuffer(stream.counts, dtype=bool), tokens[:count], NONE)
    starts = np.arange(texts) * sequence
    name = spec_name("text", sequence=sequence, documents=documents if documents != "file" else "", end=end)
    return DescribedTexts(
        tokens[:-1].reshape(texts, sequence),
        labels[1:].reshape(texts, sequence),
        _ids(stream, starts.tolist()),
        f"{name} tokenizer={codes.path.name}",
        codes.vocabulary,
    )


def _ids(stream: Stream, starts: Sequence[int]) -> list[str]:
    """The ids of texts that start at some tokens: the file of the first token, and its number there."""
    ids, place = [], 0
    for start in starts:
        while place + 1 < len(stream.places) and stream.places[place + 1][0] <= start:
            place += 1
        first, file = stream.places[place]
        ids.append(f"{file}:{start - first}")
    return ids


@lru_cache(maxsize=2)  # training and validation are often parts of the same files
def _stream(files: tuple[File, ...], documents: Documents, tokenizer: str, state: str, end: str) -> Stream:
    """The tokens of some files, by a tokenizer's file in that state."""
    codes = open_tokenizer(tokenizer)
    stream, waiting, letters = Stream(), list[Document](), 0
    for document in _documents(files, documents):
        waiting.append(document)
        letters += len(document.text) + len(document.prompt)
        if letters >= AT_ONCE:
            _encode(stream, waiting, codes, codes.end(end))
            waiting, letters = [], 0
    _encode(stream, waiting, codes, codes.end(end))
    return stream


def _encode(stream: Stream, documents: list[Document], codes: TokenizerFile, end: int) -> None:
    prompts = codes.encode([document.prompt for document in documents])
    texts = codes.encode([document.text for document in documents])
    for document, prompt, text in zip(documents, prompts, texts, strict=True):
        stream.add(document.file, prompt, counts=False)
        stream.add(document.file, [*text, end], counts=True)


def _files(at: Opening, noun: str) -> list[tuple[str, Path]]:
    """The files of a place, each with its name there."""
    if at.path.is_file():
        return [(at.path.name, at.path)]
    paths = sorted(
        path
        for path in at.path.rglob("*")
        if path.suffix in SUFFIXES and path.is_file() and not _is_hidden(path.relative_to(at.path))
    )
    if not paths:
        raise InvalidInputError(f"data {noun} is neither a file nor a folder of {' or '.join(SUFFIXES)} files")
    return [(path.relative_to(at.path).as_posix(), path) for path in paths]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _documents(files: Sequence[File], kind: Documents) -> Iterator[Document]:
    for file in files:
        name, path = file.name, file.path
        try:
            text = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"text {path} cannot be read as UTF-8 ({error}); mend it") from error
        if path.suffix == ".jsonl":
            yield from _objects(name, path, text)
        else:
            parts = {"file": [text], "line": text.split("\n"), "paragraph": text.split("\n\n")}[kind]
            yield from (Document(name, part) for part in parts if part.strip())


def _objects(name: str, path: Path, text: str) -> Iterator[Document]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise InvalidInputError(f"{path}: line {number} is no JSON ({error}); give an object a line") from error
        fields = entry if isinstance(entry, dict) else {}
        answer = next((fields[key] for key in ANSWERS if isinstance(fields.get(key), str)), None)
        if isinstance(fields.get("prompt"), str) and answer is not None:
            yield Document(name, answer, fields["prompt"])
        elif isinstance(fields.get("text"), str):
            yield Document(name, fields["text"])
        else:
            raise InvalidInputError(
                f"{path}: line {number} has {listed(list(map(str, fields))) or 'no object'}; give `text`, or `prompt` "
                "and `completion`"
            )
