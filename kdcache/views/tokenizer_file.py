"""A tokenizer as a file of the package tokenizers: what its ids are, and how many bytes each stands for."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError
from kdcache.views.texts import Vocabulary

END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[EOS]", "<end_of_turn>")
"""The names that vocabularies give the end of a text, the likelier ones first."""
SPACE = "\u2581"  # of SentencePiece


class TokenizerFile:
    """A tokenizer. `vocabulary` tells its ids; `encode` gives those of texts, without marks of its own around them."""

    def __init__(self, path: Path, tokenizer: Any, digest: str) -> None:
        self.path, self._tokenizer = path, tokenizer
        self.vocabulary = Vocabulary(_size(tokenizer), digest, _token_bytes(tokenizer))

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False)]

    def end(self, name: str) -> int:
        """The id of the token that ends a text: of that name, by default the first of `END_TOKENS` that there is.
        Raises InvalidInputError for one that there is not."""
        for token in (name,) if name else END_TOKENS:
            if (number := self._tokenizer.token_to_id(token)) is not None:
                return int(number)
        if name:
            raise InvalidInputError(f"tokenizer {self.path} has no token {name!r}; name one of its own by end=TOKEN")
        raise InvalidInputError(
            f"tokenizer {self.path} has none of {', '.join(END_TOKENS)} to end a text with; name its own by end=TOKEN"
        )


def open_tokenizer(file: str | Path) -> TokenizerFile:
    """The tokenizer of a file. Raises InvalidInputError for one that cannot be read."""
    path = Path(file).expanduser()
    try:
        import tokenizers
    except ImportError as error:
        raise InvalidInputError("the package tokenizers is not installed; pip install 'kdcache[text]'") from error
    try:
        data = path.read_bytes()
        tokenizer = tokenizers.Tokenizer.from_buffer(data)
    except OSError as error:
        raise InvalidInputError(f"tokenizer {path} cannot be read ({error}); name a tokenizer.json") from error
    except Exception as error:  # of the package, which raises Exception itself
        raise InvalidInputError(
            f"tokenizer {path} is no file of the package tokenizers ({error}); name the tokenizer.json beside a model"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return TokenizerFile(path, tokenizer, hashlib.sha256(_rules(data)).hexdigest())


def _rules(data: bytes) -> bytes:
    """The rules that ids hang on, whatever spaces the file has and however it pads and cuts."""
    rules = json.loads(data)
    rules = {name: value for name, value in rules.items() if name not in ("padding", "truncation")}
    return json.dumps(rules, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _token_bytes(tokenizer: Any) -> IntArray | None:
    """The bytes of text that each id stands for, 0 for marks; None where the vocabulary does not tell, as WordPiece."""
    kind = json.loads(tokenizer.to_str())
    measure: Callable[[str], int]
    names = json.dumps([kind.get("decoder"), kind.get("pre_tokenizer"), kind.get("normalizer")], ensure_ascii=False)
    if "ByteLevel" in names:
        measure = len  # a letter of its alphabet is a byte
    elif "Metaspace" in names or SPACE in names:
        measure = _sentence_piece
    else:
        return None
    sizes = np.zeros(_size(tokenizer), dtype=np.int64)
    for token, number in tokenizer.get_vocab().items():
        sizes[number] = measure(token)
    for number, token in tokenizer.get_added_tokens_decoder().items():
        sizes[number] = 0 if token.special else len(token.content.encode())
    return sizes


def _size(tokenizer: Any) -> int:
    """One more than the largest id: a vocabulary may have holes."""
    return 1 + max(tokenizer.get_vocab().values(), default=-1)


def _sentence_piece(token: str) -> int:
    is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return 1 if is_byte else len(token.replace(SPACE, " ").encode())
