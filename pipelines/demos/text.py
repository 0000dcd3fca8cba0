"""The demo on text: a language model as the teacher, its store of tokens, a student with it and one without."""

from pathlib import Path
from typing import Any

from kdcache.base.progress import Progress, silent
from kdcache.base.records import Record
from kdcache.errors import InvalidInputError
from kdcache.pipelines.demos.named import renamed, with_seconds
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.train.stage import train
from kdcache.views.sources import open_data

VOCABULARY, SEQUENCE = 1024, 128
END = "<|endoftext|>"
TEACHER_TEXTS, STUDENT_TEXTS, VALIDATION_TEXTS = 3072, 768, 192
TEACHER, STUDENT = {"width": 128, "tied": False}, {"width": 32, "tied": False}
NETWORK = "kdcache.networks:gru"
TOP_K = 20
RATES = {"optimizer": "adamw", "lr": 5e-3, "weight_decay": 0.01, "batch_size": 16}


class TextDemoRow(Record):
    """One line of the demo's table: perplexity and bits a byte on texts that nobody learned from; seconds of the
    stage."""

    what: str
    perplexity: float | None
    bits_a_byte: float | None
    seconds: float


class TextDemoSummary(Record):
    """The summary that `kdcache demo --text` prints at its end."""

    rows: tuple[TextDemoRow, ...]
    bytes_a_row: float
    store: str
    content_id: str | None


def demo_text(folder: Path, text: Path, *, progress: Progress = silent) -> TextDemoSummary:
    """Train a tokenizer and a teacher on a file of text, extract the answers to a quarter of what it read, and train
    two students on that; afterwards all lies in `folder`.

    Raises InvalidInputError where the folder holds something else, and for a text that is too short; an interrupted
    demo goes on.
    """
    tokenizer = folder / "bpe.json"
    if folder.exists() and any(folder.iterdir()) and not tokenizer.exists():
        raise InvalidInputError(f"{folder} is not empty; choose another folder for the demo")
    if not tokenizer.exists():
        progress(f"training a tokenizer of {VOCABULARY:,} tokens", 0, 0)
        write_tokenizer(tokenizer, text)
    source = {"tokenizer": str(tokenizer), "sequence": SEQUENCE}
    count = len(open_data(f"text:{text}", source).ids)
    if count < (needed := TEACHER_TEXTS + VALIDATION_TEXTS):
        raise InvalidInputError(
            f"{text} has {count:,} texts of {SEQUENCE} tokens, and the demo takes {needed:,}; name a longer one, such "
            "as that of Debian's bible-kjv-text"
        )
    common = {"data": f"text:{text}", "workers": 0, "val_set": {"range": f"{count - VALIDATION_TEXTS}:{count}"}}
    students = source | {"range": f"0:{STUDENT_TEXTS}"}

    def train_run(run: str, name: str, **values: Any) -> TextDemoRow:
        settings = TrainSettings.model_validate({
            "run": str(folder / run), "student": NETWORK, **common, **RATES, **values,
        })  # fmt: skip
        summary, seconds = with_seconds(lambda: train(settings, progress=renamed(progress, name)))
        measures = {measure: summary.validation[measure] for measure in ("perplexity", "bits_a_byte")}
        return TextDemoRow(what=name, seconds=seconds, **measures)

    texts = source | {"range": f"0:{TEACHER_TEXTS}"}
    teacher = train_run("teacher", "teacher", student_set=TEACHER, data_set=texts, epochs=4)
    settings = ExtractSettings.model_validate({
        "store": str(folder / "text.kd"), "teacher": f"run:{folder / 'teacher'}@last", "data": common["data"],
        "data_set": students, "top_k": TOP_K, "workers": 0,
    })  # fmt: skip
    store, seconds = with_seconds(lambda: extract(settings, progress=renamed(progress, "store")))
    learn = {"student_set": STUDENT, "data_set": students, "epochs": 6}
    taught = {"store": (store.store,), "temperature": 1.0, "set": {"w_ce": 0.1, "w_kd": 0.9}}
    rows = (
        teacher,
        TextDemoRow(what=f"store of the top {TOP_K}", perplexity=None, bits_a_byte=None, seconds=seconds),
        train_run("student-kd", "student with the store", **learn, **taught),
        train_run("student-alone", "student alone", **learn),
    )
    return TextDemoSummary(rows=rows, bytes_a_row=store.bytes_a_row, store=store.store, content_id=store.content_id)


def write_tokenizer(path: Path, text: Path, vocabulary: int = VOCABULARY) -> None:
    """Train a byte-level BPE on a text and write its file. Raises InvalidInputError for a text that cannot be read."""
    try:
        import tokenizers
    except ImportError as error:
        raise InvalidInputError("the package tokenizers is not installed; pip install 'kdcache[text]'") from error
    if not text.is_file():
        raise InvalidInputError(f"there is no file {text}; name one of text")
    codes = tokenizers.Tokenizer(tokenizers.models.BPE())
    codes.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    codes.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    codes.train([str(text)], trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    codes.save(str(path))
