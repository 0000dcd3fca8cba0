"""Sizes of stores of language models: made rows are what they are said to be, and all bytes of stores are counted."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kdcache.labels.sampled import SampledEncoding
from kdcache.store.plan import draw_words
from kdcache.views.data import Data
from tests.benchmarks.language_page import DETAILS, SIZES, write_page
from tests.benchmarks.language_rows import MadeTeacher, first_texts, frequencies, text_in_tokens
from tests.benchmarks.language_sizes import CHOICES, NUMBERINGS, Shares, bytes_by_part, written_stores
from tests.kits.house import ROOT

CLASSES, SEQUENCE, TEXTS = 3000, 64, 5


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("text")
    return text_in_tokens((ROOT / "docs/format.md").read_text(), folder, SEQUENCE, vocabulary=600)


def test_frequencies_are_counted_and_go_on_by_zipf(text: Data) -> None:
    shares = frequencies(text, CLASSES)
    assert (shares > 0).all()
    assert shares.sum() == pytest.approx(1.0)
    counts = np.bincount(np.asarray(text.samples.tokens).reshape(-1), minlength=CLASSES)  # type: ignore[attr-defined]
    known = counts >= 5
    assert np.ptp(shares[known] / counts[known]) < 1e-9
    assert (np.diff(shares[600:]) < 0).all()
    assert shares[~known].max() < shares[known].min()


def test_the_text_s_next_token_is_as_likely_as_the_teacher_says(text: Data) -> None:
    teacher = MadeTeacher.of(frequencies(text, CLASSES))
    labels = text.labels[text.labels >= 0][:1024]
    logits = teacher.logits(labels, 7)
    assert torch.equal(teacher.logits(labels, 7), logits)
    best, ids = torch.softmax(logits.double(), dim=-1).max(dim=-1)
    hits = (ids.numpy() == labels).sum()
    assert abs(hits - float(best.sum())) < 4 * float((best * (1 - best)).sum()) ** 0.5


def test_stores_of_all_kinds_are_written_and_their_bytes_are_all_counted(text: Data, tmp_path: Path) -> None:
    shares = Shares()
    stores = written_stores(tmp_path, text, CLASSES, TEXTS, shares)
    assert list(stores) == [(title, numbering) for numbering in NUMBERINGS for title in CHOICES]
    for store in stores.values():
        assert (store.rows, store.identity.dataset.sequence) == (TEXTS * SEQUENCE, SEQUENCE)
        files = [path for path in Path(store.folder.root).rglob("*") if path.is_file()]
        parts = bytes_by_part(store)
        assert sum(parts.values()) * store.rows == pytest.approx(sum(path.stat().st_size for path in files))
        assert {*store.segments[0].layout.rowwise, "contents", "order", "labels", "commits", "records"} <= set(parts)
    assert len(shares.lines()) == 5


def test_draws_are_those_of_the_encoding(text: Data, tmp_path: Path) -> None:
    store = written_stores(tmp_path, text, CLASSES, TEXTS, Shares())["20 draws", NUMBERINGS[0]]
    positions = np.arange(32)  # as many as are answered at once
    rows = store.order[positions]
    logits = MadeTeacher.of(frequencies(text, CLASSES)).logits(text.labels[rows], int(rows[0]))
    encoding = store.identity.encoding
    assert isinstance(encoding, SampledEncoding)
    fields = encoding.draw(logits, draw_words(0, rows, 0), store.identity.space)
    assert np.array_equal(store.read(0, positions).draws, fields["draws"].numpy())


def test_other_numbers_of_words_are_the_same_text(text: Data) -> None:
    names = np.random.RandomState(0).permutation(CLASSES)
    plain, named = first_texts(text, TEXTS), first_texts(text, TEXTS, names)
    assert np.array_equal(names[plain.samples.tokens], named.samples.tokens)  # type: ignore[attr-defined]
    assert np.array_equal(named.labels < 0, plain.labels < 0)


def test_a_page_keeps_what_people_wrote(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n\n" + "\nold\n".join(SIZES) + "\n\nbetween\n\n" + "\nold\n".join(DETAILS) + "\n\nafter\n")
    run = {"device": "a CPU", "versions": {}, "command": "this", "minutes": 1.0}
    write_page(page, {**run, "sizes": {"top 20": {"classes": 30.0, "commits": 1.5}}, "model": ["made"]})
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "between" in written
    assert "| kdcache, top 20 | 31.5 |" in written
    assert "| top 20 | 30.00 | 1.50 | 31.50 |" in written
    assert "old" not in written
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="lacks the marks"):
        write_page(page, {**run, "sizes": {}, "model": []})
