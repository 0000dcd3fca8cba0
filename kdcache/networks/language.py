"""Small networks for texts: they answer every token with logits for the one that follows.

Weights of embeddings, of the head and of gpt's layers begin as those of GPT-2 do (Radford et al. 2019, section 2.3, and
their code): normal with a deviation of 0.02, biases 0, gpt's layers that add to its stream by 1 / sqrt(2 depth) of it.
Both are causal: logits at a token depend on that token and those before it alone.

Shape letters: B texts, S tokens of each, C words of the vocabulary, D width, H heads.
"""

from math import sqrt

import torch
from torch import Tensor, nn

from kdcache.errors import InvalidInputError

DEVIATION = 0.02
WIDENING = 4  # of the hidden layer of a block, as in Vaswani et al. 2017


def gpt(
    num_classes: int,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    sequence: int = 512,
    dropout: float = 0.0,
    tied: bool = True,
) -> "GPT":
    """A gpt is a decoder of pre-norm blocks with learned positions, for texts: it answers every token with logits for
    the one that follows. Input token ids [B, S], i32 or i64, S <= sequence; output logits [B, S, num_classes] f32.
    After Radford et al. 2019 (GPT-2).

    Args:
        num_classes: The number of words of the vocabulary.
        width: Features of a token.
        depth: The number of blocks.
        heads: Heads of a block's attention.
        sequence: The most tokens of a text.
        dropout: The share of features that are dropped.
        tied: The head's weight is the embedding's.

    Raises InvalidInputError where `heads` do not divide `width`.

    Examples:
        >>> from kdcache.networks import gpt
        >>> gpt(30, width=16, depth=1)(torch.zeros(2, 5, dtype=torch.int64)).shape
        torch.Size([2, 5, 30])
    """
    if width % heads:
        raise InvalidInputError(f"gpt has width {width} and {heads} heads; give a width that {heads} divides")
    return GPT(num_classes, width, depth, heads, sequence, dropout, tied)


def gru(num_classes: int, width: int = 128, depth: int = 1, dropout: float = 0.0, tied: bool = True) -> "GRU":
    """A gru is a network of gated recurrent units for texts of any length; the units begin as torch's do. Input token
    ids [B, S], i32 or i64; output logits [B, S, num_classes] f32. Cho et al. 2014; the tie is Press & Wolf 2017's.

    Args:
        num_classes: The number of words of the vocabulary.
        width: Features of a token, and units of a layer.
        depth: The number of layers.
        dropout: The share of features that are dropped.
        tied: The head's weight is the embedding's.

    Examples:
        >>> from kdcache.networks import gru
        >>> gru(30, width=16)(torch.zeros(2, 5, dtype=torch.int64)).shape
        torch.Size([2, 5, 30])
    """
    return GRU(num_classes, width, depth, dropout, tied)


class GPT(nn.Module):
    """The network of `gpt`."""

    def __init__(
        self, classes: int, width: int, depth: int, heads: int, sequence: int, dropout: float, tied: bool
    ) -> None:
        super().__init__()
        self.sequence = sequence
        self.embedding = nn.Embedding(classes, width)
        self.positions = nn.Embedding(sequence, width)
        self.dropout = nn.Dropout(dropout)
        blocks = [DecoderBlock(width, heads, dropout) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=DEVIATION)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in blocks:
            for layer in (block.mixed, block.narrow):
                nn.init.normal_(layer.weight, std=DEVIATION / sqrt(2 * depth))
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, S, C] of token ids [B, S]. Raises InvalidInputError for anything else, and for longer texts."""
        _require_tokens(ids)
        if ids.shape[1] > self.sequence:
            raise InvalidInputError(
                f"gpt was built for {self.sequence} tokens and was asked about a text of {ids.shape[1]}; build it with "
                f"sequence={ids.shape[1]}"
            )
        places = torch.arange(ids.shape[1], device=ids.device)
        hidden = self.dropout(self.embedding(ids) + self.positions(places))
        for block in self.blocks:
            hidden = block(hidden)
        logits: Tensor = self.head(self.norm(hidden))
        return logits


class DecoderBlock(nn.Module):
    """Causal attention of H heads, then a hidden layer of 4 D; each on the normalised stream [B, S, D], and added."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.asked = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.hidden_norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, WIDENING * width)
        self.narrow = nn.Linear(WIDENING * width, width)
        self.activation = nn.GELU(approximate="tanh")
        self.dropout = nn.Dropout(dropout)

    def forward(self, stream: Tensor) -> Tensor:
        stream = stream + self.dropout(self.mixed(self._attended(self.attention_norm(stream))))
        hidden = self.activation(self.wide(self.hidden_norm(stream)))
        added: Tensor = stream + self.dropout(self.narrow(hidden))
        return added

    def _attended(self, stream: Tensor) -> Tensor:
        texts, tokens, width = stream.shape
        by_head = self.asked(stream).reshape(texts, tokens, 3, self.heads, width // self.heads)
        query, key, value = by_head.permute(2, 0, 3, 1, 4).unbind()  # [B, H, S, D / H]
        dropout = self.dropout.p if self.training else 0.0
        values = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return values.transpose(1, 2).reshape(texts, tokens, width)


class GRU(nn.Module):
    """The network of `gru`."""

    def __init__(self, classes: int, width: int, depth: int, dropout: float, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, width)
        self.dropout = nn.Dropout(dropout)
        self.units = nn.GRU(width, width, depth, batch_first=True, dropout=dropout if depth > 1 else 0.0)
        self.head = nn.Linear(width, classes, bias=False)
        for layer in (self.embedding, self.head):
            nn.init.normal_(layer.weight, std=DEVIATION)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, S, C] of token ids [B, S]. Raises InvalidInputError for anything else."""
        _require_tokens(ids)
        hidden, _ = self.units(self.dropout(self.embedding(ids)))
        logits: Tensor = self.head(self.dropout(hidden))
        return logits


def _require_tokens(ids: Tensor) -> None:
    if ids.ndim != 2 or ids.dtype not in (torch.int32, torch.int64):
        raise InvalidInputError(
            f"a network of texts was asked about {ids.dtype} {list(ids.shape)}; give token ids [texts, tokens], int32 "
            "or int64, as a data set of texts has them"
        )
