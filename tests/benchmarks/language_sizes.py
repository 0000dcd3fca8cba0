"""docs/language_sizes.md: bytes a token of stores of a language model over 128,000 words, everything included.

python -m tests.benchmarks.language_sizes [--texts 256] [--out docs/language_sizes.md]
python -m tests.benchmarks.language_sizes --rewrite    # nothing measured: the page from language_sizes.json

Stores are written as extract writes them, by the encodings' own `reduce`, `draw` and `encode` and by `Segment.commit`,
sealed, read back, and their files counted. The rows are made, see `language_rows`; the text under them is real.

Shape letters: R rows, C words, K kept.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kdcache.base.view_span import ViewSpan
from kdcache.labels.encoding import Choice, Encoding, LabelSpace
from kdcache.labels.encodings import chosen
from kdcache.labels.sampled import drawn, probabilities, uniforms
from kdcache.store.commits import Counts
from kdcache.store.manifest import Identity, TeacherIdentity
from kdcache.store.plan import TransformSpec, ViewPlan, draw_words
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.store.whole_arrays import make_order
from kdcache.views.contents import content_fingerprint, contents_of
from kdcache.views.data import Data
from kdcache.views.fingerprint import token_fingerprints
from kdcache.views.provenance import provenance
from tests.benchmarks.language_page import write_page
from tests.benchmarks.language_rows import MadeTeacher, bible_text, first_texts, frequencies, text_in_tokens

Array = npt.NDArray[Any]
Fields = dict[str, Array]

CLASSES, SEQUENCE, TEXTS = 128_000, 512, 208
AT_ONCE = 32  # rows of logits that are in memory
CHOICES = {
    "top 20": ("topk", Choice(top_k=20)),
    "top 50": ("topk", Choice(top_k=50)),
    "20 draws": ("sampled", Choice(draws=20, draw_temperature=1.0)),
    "50 draws": ("sampled", Choice(draws=50, draw_temperature=1.0)),
}
NUMBERINGS = ("ids by frequency", "ids in any order")


@dataclass(frozen=True)
class Written:
    """A store that is being written: `names` [C] are the ids of its words."""

    store: Store
    segment: Segment
    data: Data
    names: Array
    encoding: Encoding


@dataclass
class Shares:
    """The teacher's sureness, a list of rows each: probabilities of its best word, of the best 20 and 50, and of the
    text's own next token, from the rows as top 50 reduces them; and how many distinct ids a row's draws are, by title.
    """

    best: list[Array] = field(default_factory=list)
    best_20: list[Array] = field(default_factory=list)
    best_50: list[Array] = field(default_factory=list)
    label: list[Array] = field(default_factory=list)
    distinct: dict[str, list[Array]] = field(default_factory=dict)

    def add(self, fields: dict[str, Fields], labels: Array) -> None:
        top_50 = fields["top 50"]
        head, tail = -top_50["distances"].astype(np.float64), top_50["tail"][:, :1].astype(np.float64)
        log_z = np.logaddexp.reduce(np.concatenate([head, tail], axis=1), axis=1)
        p = np.exp(head - log_z[:, None])
        self.best.append(p[:, 0])
        self.best_20.append(p[:, :20].sum(axis=1))
        self.best_50.append(p.sum(axis=1))
        self.label.append(np.exp(-top_50["label"][:, 0] - log_z)[labels >= 0])
        for title, kept in fields.items():
            if "draws" in kept:
                numbers = 1 + np.count_nonzero(np.diff(kept["draws"], axis=1), axis=1)
                self.distinct.setdefault(title, []).append(numbers)

    def lines(self) -> list[str]:
        best, best_20, best_50, label = map(np.concatenate, (self.best, self.best_20, self.best_50, self.label))
        tenth, middle, ninth = np.percentile(best, [10, 50, 90])
        return [
            f"best word's probability: mean {best.mean():.2f}, deciles 1, 5, 9: {tenth:.2f}, {middle:.2f}, {ninth:.2f}",
            f"best 20: {best_20.mean():.2f}, best 50: {best_50.mean():.2f} on average",
            f"text's own next token: mean probability {label.mean():.2f}, mean loss {-np.log(label).mean():.2f} nats",
            *(
                f"{title}: {np.concatenate(parts).mean():.1f} distinct ids a row"
                for title, parts in self.distinct.items()
            ),
        ]


def written_stores(folder: Path, text: Data, classes: int, texts: int, shares: Shares) -> dict[tuple[str, str], Store]:
    """Sealed stores of the first texts of a data set, by encoding and numbering of words, opened for reading."""
    whole, teacher = first_texts(text, texts), MadeTeacher.of(frequencies(text, classes))
    any_order = np.random.RandomState(1).permutation(classes)
    numbered = {NUMBERINGS[0]: np.arange(classes), NUMBERINGS[1]: any_order}
    order, order_identity = make_order(len(whole), "shuffled", 0, sequence=whole.sequence)
    stores: dict[tuple[str, str], Written] = {}
    for numbering, names in numbered.items():
        named = first_texts(whole, texts, names)
        for title, (kind, choice) in CHOICES.items():
            space = LabelSpace(classes)
            encoding = chosen(kind, choice, space).model_copy(update={"contents": contents_of(named.samples)})
            identity = Identity(
                dataset=named.identity(),
                order=order_identity,
                views=ViewPlan(transform=TransformSpec(name="none")),
                teacher=TeacherIdentity(name="made-up", weights=64 * "0", classes=classes),
                encoding=encoding,
            )
            path = folder / f"{title}, {numbering}.kd"
            store = Store.create(path, identity, order=order, labels=named.labels[order], provenance=provenance("cpu"))
            stores[title, numbering] = Written(store, store.add_segment(ViewSpan(0, 1)), named, names, encoding)
    layout = next(iter(stores.values())).segment.layout
    for block in range(layout.blocks):
        positions = np.arange(*layout.block_rows(block))
        fields, sums = _answers(teacher, whole, order[positions], block, shares)
        for (title, _), written in stores.items():
            _commit(written, block, positions, fields[title], sums[title])
    for each in stores.values():
        each.store.seal()
    return {key: _read_back(Store.open(each.store.folder.root), each, fields[key[0]]) for key, each in stores.items()}


def _answers(
    teacher: MadeTeacher, data: Data, indices: Array, block: int, shares: Shares
) -> tuple[dict[str, Fields], dict[str, Fields]]:
    """The fields [R, ...] of each encoding for some rows, and of block 0 the sums for what a segment has once."""
    pieces = [indices[start : start + AT_ONCE] for start in range(0, len(indices), AT_ONCE)]
    with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        results = list(pool.map(lambda rows: _piece(teacher, data.labels[rows], rows, sums=block == 0), pieces))
    for result in results:
        shares.add(result.fields, data.labels[result.rows])
    fields = {
        title: {name: np.concatenate([result.fields[title][name] for result in results]) for name in first}
        for title, first in results[0].fields.items()
    }
    sums = {
        title: {name: np.sum([result.sums[title][name] for result in results], axis=0) for name in first}
        for title, first in results[0].sums.items()
    }
    return fields, sums


@dataclass(frozen=True)
class Piece:
    """The arrays that each encoding keeps of a few rows, by its title, and the sums for what its segment has once."""

    rows: Array
    fields: dict[str, Fields]
    sums: dict[str, Fields]


def _piece(teacher: MadeTeacher, labels: Array, rows: Array, *, sums: bool) -> Piece:
    space = LabelSpace(len(teacher.log_frequency))
    encodings = {title: chosen(kind, choice, space) for title, (kind, choice) in CHOICES.items()}
    logits, labels_R1 = teacher.logits(labels, int(rows[0])), torch.from_numpy(labels)[:, None].long()
    p, words = probabilities(logits, 1.0), draw_words(0, rows, 0)
    of_draws: dict[str, Any] = {}  # of all numbers of draws alike
    fields: dict[str, Fields] = {}
    totals: dict[str, Fields] = {}
    for title, encoding in encodings.items():
        if encoding.DRAWN:  # as `encoding.draw` does it, with one softmax for both
            of_draws = of_draws or encoding.reduce(logits, labels_R1, space)
            kept = of_draws | {"draws": drawn(p, torch.from_numpy(uniforms(words, encoding.kept(space))))}
        else:
            kept = encoding.reduce(logits, labels_R1, space)
        totals[title] = {}
        if sums:
            totals[title] = {k: v.double().numpy() for k, v in encoding.segment_sums(logits, kept, space).items()}
        fields[title] = {name: values.numpy() for name, values in kept.items()}
    return Piece(rows, fields, totals)


def _commit(written: Written, block: int, positions: Array, fields: Fields, sums: Fields) -> None:
    """Encode and commit a block, with its fingerprints, under the store's own numbers of words."""
    store, encoding = written.store, written.encoding
    space, texts = store.identity.space, store.order[positions][:: written.data.sequence] // written.data.sequence
    named = _renamed(fields, written.names)
    encoded = encoding.encode({name: values[None] for name, values in named.items()}, space)
    tokens = np.asarray(written.data.samples.tokens)  # type: ignore[attr-defined]
    pixels = np.concatenate([token_fingerprints(tokens[text]) for text in texts])
    contents = [content_fingerprint(written.data.samples, int(text), None, "bytes") for text in texts]
    arrays = {**encoded.arrays, "pixels": pixels[None]}
    arrays["contents"] = np.repeat(np.array(contents, dtype=np.uint32), written.data.sequence)[None]
    if block == 0:
        by_name = {name: _by_new_id(total, written.names) for name, total in sums.items()}
        arrays |= encoding.segment_values(by_name)
    counts = Counts.of(named["label"], int(encoded.clamped.sum()))
    assert written.segment.commit(block, arrays=arrays, counts=counts, provenance=provenance("cpu")) is not None


def _renamed(fields: Fields, names: Array) -> Fields:
    named = dict(fields)
    if "classes" in named:
        named["classes"] = names[named["classes"]]
    if "draws" in named:
        named["draws"] = np.sort(names[named["draws"]], axis=-1)
    return named


def _by_new_id(total_2C: Array, names: Array) -> Array:
    renamed = np.empty_like(total_2C)
    renamed[:, names] = total_2C
    return renamed


def _read_back(store: Store, written: Written, fields: Fields) -> Store:
    """The store, whose last block has the ids that were given to it. Raises AssertionError."""
    rows = len(next(iter(fields.values())))
    soft, named = store.read(0, np.arange(store.rows - rows, store.rows)), _renamed(fields, written.names)
    name = "draws" if soft.DRAWN else "classes"
    assert np.array_equal(getattr(soft, name), named[name])
    return store


def bytes_by_part(store: Store) -> dict[str, float]:
    """Bytes a token by array and by what else a store holds: all of its files."""
    root, segment = Path(store.folder.root), store.segments[0].layout.name
    parts: dict[str, float] = {}
    for path in (path for path in root.rglob("*") if path.is_file()):
        steps = path.relative_to(root).parts
        name = "records"
        if any(step.startswith("commits") for step in steps):
            name = "commits"
        elif "c" in steps:
            name = steps[1] if steps[0] == segment else steps[0]
        parts[name] = parts.get(name, 0.0) + path.stat().st_size / store.rows
    return parts


def tables(stores: dict[tuple[str, str], Store]) -> Iterator[tuple[str, dict[str, float]]]:
    for (title, numbering), store in stores.items():
        yield f"{title}, {numbering}", bytes_by_part(store)


def measured(texts: int) -> dict[str, Any]:
    """The record of stores of `texts` texts, which are written and counted."""
    began, shares = time.monotonic(), Shares()
    with tempfile.TemporaryDirectory() as folder:
        whole = text_in_tokens(bible_text(), Path(folder), SEQUENCE)
        stores = written_stores(Path(folder), whole, CLASSES, texts, shares)
        sizes = dict(tables(stores))
        first = next(iter(stores.values()))
        layout = first.segments[0].layout
        made = f"{first.rows:,} tokens in texts of {SEQUENCE}, {layout.blocks} blocks of {layout.block:,}"
    return {
        "device": f"{os.cpu_count()} shared CPU cores",
        "versions": provenance("cpu").versions,
        "command": f"python -m tests.benchmarks.language_sizes --texts {texts}",
        "minutes": (time.monotonic() - began) / 60,
        "sizes": sizes,
        "model": [made, *shares.lines()],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.language_sizes", description=__doc__)
    parser.add_argument("--texts", type=int, default=TEXTS, help=f"of {SEQUENCE} tokens each")
    parser.add_argument("--out", type=Path, default=Path("docs/language_sizes.md"), help="page with the tables")
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"), help="folder of the JSON")
    parser.add_argument("--rewrite", action="store_true", help="measure nothing: write the page from its JSON")
    given = parser.parse_args(arguments)
    place = given.figures / "language_sizes.json"
    if not given.rewrite:
        place.write_text(json.dumps(measured(given.texts), indent=1) + "\n")
    write_page(given.out, json.loads(place.read_text()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
