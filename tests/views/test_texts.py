"""Texts as data: packed tokens and their labels, masks, ids of others, and all that is refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.store.plan import TransformSpec, ViewPlan
from kdcache.views.data import Data
from kdcache.views.draw import ViewDataset
from kdcache.views.fingerprint import token_fingerprints
from kdcache.views.sources import open_data
from kdcache.views.texts import rows_of_texts, texts_of_order
from kdcache.views.tokenizer_file import open_tokenizer
from kdcache.views.transforms import none
from kdcache.views.view_stack import ViewRequest
from kdcache.views.workers import draw_requests
from tests.kits.texts import END, SEQUENCE, TEXT, VOCABULARY, texts_of, write_tokenizer

ROWS = [[5, 6, 7, 8, 9], [1, 2, 3], [4, 4, 4, 4, 4, 4, 4, 4]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("texts") / "bpe.json")


def parquet(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table({"input_ids": ROWS} | columns), path)
    return f"parquet:{path}"


def test_documents_are_packed_with_the_token_that_ends_them(tokenizer: Path) -> None:
    data, codes = texts_of(tokenizer), tokenizers.Tokenizer.from_file(str(tokenizer))
    stream = [*codes.encode(TEXT.read_text()).ids, codes.token_to_id(END)]
    tokens = np.concatenate([data.samples[index][0].numpy() for index in range(len(data.ids))])
    count = len(stream)
    assert len(data) == len(data.ids) * SEQUENCE == -(-(count - 1) // SEQUENCE) * SEQUENCE
    assert tokens[: count - 1].tolist() == stream[:-1]
    assert data.labels[: count - 1].tolist() == stream[1:]  # over the ends of texts too
    assert (data.labels[count - 1 :] == -1).all()
    assert (data.classes, data.sequence) == (VOCABULARY, SEQUENCE)
    counted = data.labels[data.labels >= 0]
    assert data.vocabulary.token_bytes is not None
    first_token = len(codes.decode(stream[:1]).encode())
    assert data.vocabulary.token_bytes[counted].sum() == len(TEXT.read_bytes()) - first_token
    assert data.ids[:2] == ["LICENSE:0", f"LICENSE:{SEQUENCE}"]


def test_tokens_of_prompts_are_no_labels(tokenizer: Path, tmp_path: Path) -> None:
    path, codes = tmp_path / "chats.jsonl", tokenizers.Tokenizer.from_file(str(tokenizer))
    lines = [{"prompt": "the license", "completion": " means"}, {"text": "Work shall mean"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    data = open_data(f"text:{path}", {"tokenizer": str(tokenizer), "sequence": 64})
    prompt, answer, text = (codes.encode(part).ids for part in ("the license", " means", "Work shall mean"))
    stream = [*prompt, *answer, 0, *text, 0]
    labels = [-1] * (len(prompt) - 1) + stream[len(prompt) :]
    assert data.labels[: len(labels)].tolist() == labels
    assert (data.labels[len(labels) :] == -1).all()


@pytest.mark.parametrize(("kind", "count"), [("file", 1), ("paragraph", None), ("line", None)])
def test_documents_may_be_lines_or_paragraphs(tokenizer: Path, kind: str, count: int | None) -> None:
    data = texts_of(tokenizer, documents=kind)
    parts = {"file": "\0", "line": "\n", "paragraph": "\n\n"}
    expected = count or sum(bool(part.strip()) for part in TEXT.read_text().split(parts[kind]))
    assert int((data.labels == 0).sum()) == expected


def test_rows_of_ids_are_cut_into_texts(tmp_path: Path) -> None:
    data = open_data(parquet(tmp_path / "a.parquet"), {"sequence": 4})
    assert data.ids == ["0:0", "0:4", "1:0", "2:0", "2:4"]
    tokens = [data.samples[index][0].tolist() for index in range(5)]
    assert tokens == [[5, 6, 7, 8], [9, 0, 0, 0], [1, 2, 3, 0], [4, 4, 4, 4], [4, 4, 4, 4]]
    labels = [[6, 7, 8, 9], [-1] * 4, [2, 3, -1, -1], [4, 4, 4, 4], [4, 4, 4, -1]]
    assert data.labels.reshape(-1, 4).tolist() == labels
    whole = open_data(parquet(tmp_path / "a.parquet"), {})
    assert (whole.sequence, whole.ids) == (8, ["0", "1", "2"])


def test_labels_and_masks_of_others_say_what_counts(tmp_path: Path) -> None:
    labels = [[-100, -100, 7, 8, 9], [1, 2, 3], [-100] * 8]
    mask = [[1, 1, 1, 1, 0], [1, 1, 1], [1] * 8]
    data = open_data(parquet(tmp_path / "a.parquet", labels=labels, attention_mask=mask), {})
    assert data.labels.reshape(-1, 8).tolist() == [[-1, 7, 8, *[-1] * 5], [2, 3, *[-1] * 6], [-1] * 8]


def test_the_same_rows_are_one_data_set_wherever_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"import numpy as np\nROWS = {ROWS}\n"
        "class Texts:\n    tokens = np.array([row + [0] * (8 - len(row)) for row in ROWS])\n"
        "    labels = np.array([row[1:] + [-1] * (9 - len(row)) for row in ROWS])\n"
        "def arrays(): return Texts()\ndef dicts(): return [{'input_ids': row} for row in ROWS]\n"
    )
    identities = [
        open_data(spec, {}).identity()
        for spec in (parquet(tmp_path / "a.parquet"), f"{tmp_path}/mine.py:arrays", f"{tmp_path}/mine.py:dicts")
    ]
    assert identities[0] == identities[1] == identities[2]
    assert "tokenizer" not in identities[0].model_dump(mode="json")


def test_a_tokenizer_is_known_by_its_rules_and_not_by_its_file(tokenizer: Path, tmp_path: Path) -> None:
    rules = json.loads(tokenizer.read_text())
    (tmp_path / "same.json").write_text(json.dumps(rules | {"truncation": None, "padding": None}, indent=7))
    other = write_tokenizer(tmp_path / "other.json", VOCABULARY + 8)
    same = texts_of(tmp_path / "same.json").identity()
    assert same == texts_of(tokenizer).identity()
    assert texts_of(other).identity().tokenizer not in ("", same.tokenizer)


def test_some_texts_are_chosen_by_the_words_of_all_data(tokenizer: Path, tmp_path: Path) -> None:
    data = texts_of(tokenizer)
    some = texts_of(tokenizer, range="3:7")
    assert some.ids == data.ids[3:7]
    assert (some.labels == data.labels[3 * SEQUENCE : 7 * SEQUENCE]).all()
    assert (some.samples[0][0] == data.samples[3][0]).all()
    (tmp_path / "ids.txt").write_text(f"{data.ids[5]}\n{data.ids[2]}\n")
    assert texts_of(tokenizer, rows=str(tmp_path / "ids.txt")).ids == [data.ids[2], data.ids[5]]
    assert len(texts_of(tokenizer, limit=3)) == 3 * SEQUENCE


def drawn(data: Data, order: np.ndarray, workers: int) -> list[np.ndarray]:
    texts = texts_of_order(order, data.sequence)
    plan = ViewPlan(transform=TransformSpec(name="none"))
    dataset = ViewDataset(data.samples, texts, plan, none(), ("bytes",), data.ids)
    requests = [ViewRequest(ViewSpan(0, 2), np.arange(start, start + 4)) for start in (0, 4)]
    return [item.pixels for item in draw_requests(dataset, requests, workers)]


@pytest.mark.parametrize("workers", [0, 1])
def test_every_token_has_its_fingerprint_in_every_view(tokenizer: Path, workers: int) -> None:
    data = texts_of(tokenizer)
    order = np.arange(len(data)).reshape(-1, SEQUENCE)[::-1].reshape(-1)
    pixels = np.concatenate(drawn(data, order, workers), axis=1)
    expected = [token_fingerprints(data.samples[len(data.ids) - 1 - text][0].numpy()) for text in range(8)]
    assert (pixels == np.concatenate(expected)).all()
    assert pixels.shape == (2, 8 * SEQUENCE)


def test_rows_of_texts() -> None:
    assert rows_of_texts(range(2, 4), 4) == range(8, 16)
    assert rows_of_texts(np.array([3, 1]), 2).tolist() == [6, 7, 2, 3]
    assert rows_of_texts(np.array([3, 1]), 1).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, r"name the tokenizer, --data-set tokenizer=FILE.json"),
        ({"sequence": 48}, r"sequence is 48, and blocks hold whole texts: give a power of two, such as 32 or 64"),
        ({"sequence": 2**14}, r"sequence is 16384; give the tokens of a text, 2 to 8,192"),
        ({"documents": "page"}, r"documents is 'page'; choose file, line, paragraph"),
        ({"end": "<eot>"}, r"has no token '<eot>'; name one of its own by end=TOKEN"),
        ({"noise": 0.5}, r"noise is 0.5, and the data set holds texts of 32 tokens"),
        ({"tokenizer": "nowhere.json"}, r"tokenizer nowhere.json cannot be read"),
        ({"tokenizer": str(TEXT)}, r"LICENSE is no file of the package tokenizers"),
    ],
)
def test_wrong_words_are_refused_by_name(tokenizer: Path, arguments: dict[str, Any], error: str) -> None:
    words = {"tokenizer": str(tokenizer), "sequence": SEQUENCE, **arguments} if arguments else {}
    with pytest.raises(InvalidInputError, match=error):
        open_data(f"text:{TEXT}", words)


def test_ids_that_are_none_are_refused_by_name(tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"input_ids": [[1, 2], [3, 900]]}), path)
    with pytest.raises(InvalidInputError, match=r"token 1 of text 1 \(1\) is 900; ids go from 0 to 319: use the tok"):
        open_data(f"parquet:{path}", {"tokenizer": str(tokenizer)})
    with pytest.raises(InvalidInputError, match=r"row 1 has 3 ids and 2 labels; give one for each"):
        open_data(parquet(tmp_path / "b.parquet", labels=[[5, 6, 7, 8, 9], [1, 2], [4] * 8]), {})
    with pytest.raises(InvalidInputError, match=r"row 0 has label 8 where its token is 7; labels stand at their own"):
        open_data(parquet(tmp_path / "c.parquet", labels=[[5, 6, 8, 8, 9], [1, 2, 3], [4] * 8]), {})
    with pytest.raises(InvalidInputError, match=r"no token of its 3 texts counts: all are masked as prompt or padding"):
        open_data(parquet(tmp_path / "d.parquet", labels=[[-100] * 5, [-100] * 3, [-100] * 8]), {})
    with pytest.raises(InvalidInputError, match=r"the labels of texts are their own tokens; leave out --labels none"):
        open_data(parquet(tmp_path / "a2.parquet"), {}, labels="none")


def test_rows_that_could_be_read_two_ways_are_refused(tmp_path: Path) -> None:
    mask = [[0, 1, 1, 1, 1], [1, 1, 1], [1] * 8]
    with pytest.raises(InvalidInputError, match=r"row 0 has padding \(mask 0\) before its tokens"):
        open_data(parquet(tmp_path / "a.parquet", attention_mask=mask), {})
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def mixed(): return [{'input_ids': [1, 2, 3]}, {'input_ids': [4, 5], 'labels': [-100, 5]}]\n"
        "class Same:\n    tokens = np.array([[1, 2, 3, 4]])\n    labels = tokens\n"
    )
    with pytest.raises(InvalidInputError, match=r"row 0 has no labels, and other rows have"):
        open_data(f"{tmp_path}/mine.py:mixed", {})
    with pytest.raises(
        InvalidInputError, match=r"label 0 of text 0 \(0\) is 1, and the token after it is 2: a label is the"
    ):
        open_data(f"{tmp_path}/mine.py:Same", {})


def test_hidden_files_and_marks_are_no_text(tokenizer: Path, tmp_path: Path) -> None:
    for name, mark in (("a/book.txt", ""), ("a/.hidden/book.txt", ""), ("b/book.txt", "\ufeff")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(mark + "Licensed works\n" * 40)
    words = {"tokenizer": str(tokenizer), "sequence": 32}
    one, other = (open_data(f"text:{tmp_path / name}", words) for name in "ab")
    assert one.identity() == other.identity()


def test_a_vocabulary_may_have_holes(tmp_path: Path) -> None:
    codes = tokenizers.Tokenizer(tokenizers.models.WordLevel({"</s>": 0, "the": 7, "word": 9}, unk_token="</s>"))
    codes.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    codes.save(str(tmp_path / "words.json"))
    (tmp_path / "text.txt").write_text("the word the word")
    data = open_data(f"text:{tmp_path}/text.txt", {"tokenizer": str(tmp_path / "words.json"), "sequence": 4})
    assert (data.classes, data.labels.tolist()) == (10, [9, 7, 9, 0])


def test_bytes_of_sentence_pieces_are_known(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("\u2581the", -1.0), ("<0x41>", -2.0), ("\u2581é", -3.0)]
    codes = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0, byte_fallback=True))
    replaced, back = tokenizers.normalizers.Replace(" ", "\u2581"), tokenizers.decoders.Replace("\u2581", " ")
    codes.normalizer, codes.decoder = replaced, tokenizers.decoders.Sequence([back, tokenizers.decoders.ByteFallback()])
    codes.add_special_tokens(["</s>"])
    codes.save(str(tmp_path / "pieces.json"))
    sizes = open_tokenizer(tmp_path / "pieces.json").vocabulary.token_bytes
    assert sizes is not None
    assert sizes[1:].tolist() == [0, 4, 1, 3]
