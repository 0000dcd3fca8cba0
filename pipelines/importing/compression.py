"""DistillKit's compression of top-k log-probabilities, decoded: floats, a polynomial, and quantised residuals in bytes.

Worked from DistillKit's sources as of 2025 (`distillkit.compression`: config, bitpack, monotonic_logprobs). A token's
bytes are, one after the other: the `exact_k` best log-probabilities as `exact_dtype`; the polynomial's coefficients as
`term_dtype`, over ranks 0, 1, ... of the others; and of each residual bin its scale and its numbers. Bits are packed
most significant first, floats are little-endian. With `delta_encoding` all these are differences to the one before.

Shape letters: M tokens, K kept classes, W bytes of a token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdcache.base.arrays import Array, IntArray
from kdcache.base.limits import CLASSES_MAX
from kdcache.base.records import explain
from kdcache.errors import InvalidInputError
from kdcache.pipelines.importing.capture import EXACT, HALF

FILE = "compression_config.yaml"  # as DistillKit writes it beside a capture
LEGACY = "legacy_logit_compression"
NAMES = ("float16", "bfloat16", "float32", "float64")

Float = Literal["float16", "bfloat16", "float32", "float64"]
WIDTHS = dict(zip(NAMES, (2, 2, 4, 8), strict=True))


class Bin(BaseModel):
    """Quantised residuals of some ranks: a scale, and so many numbers of so many bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale_dtype: Float
    element_bits: int = Field(ge=1, le=32)
    num_elements: int = Field(ge=1)

    @property
    def packed_bytes(self) -> int:
        return -(-self.element_bits * self.num_elements // 8)


class Compression(BaseModel):
    """The configuration of a capture, by DistillKit's names: `d` classes, of which `k` are kept, `exact_k` exactly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    d: int = Field(ge=2, le=CLASSES_MAX)
    k: int = Field(ge=1)
    exact_k: int = Field(ge=0)
    exact_dtype: Float = "float32"
    polynomial_terms: tuple[int | Literal["sqrt", "exp"], ...] | None = None
    term_dtype: Float = "float32"
    residual_bins: tuple[Bin, ...] = ()
    delta_encoding: bool = True
    error_diffusion: bool = False
    normalize_t: bool = False

    @property
    def approximate(self) -> bool:
        """True where some log-probabilities are a fit."""
        return self.exact_k < self.k

    @property
    def rounding(self) -> float:
        """The part by which the probabilities of a token may sum to more than 1."""
        return EXACT if not self.approximate and WIDTHS[self.exact_dtype] > 2 else HALF

    @property
    def log_prob_bytes(self) -> int:
        """W of `compressed_logprobs`."""
        terms = WIDTHS[self.term_dtype] * len(self.polynomial_terms or ())
        bins = sum(WIDTHS[part.scale_dtype] + part.packed_bytes for part in self.residual_bins)
        return WIDTHS[self.exact_dtype] * self.exact_k + terms + bins

    @property
    def index_bits(self) -> int:
        """Bits of a class id: log2 of `d` in f32, rounded up."""
        return int(np.ceil(np.log2(np.float32(self.d))))

    @property
    def index_bytes(self) -> int:
        """W of `bytepacked_indices`."""
        return -(-self.k * self.index_bits // 8)

    def classes(self, packed_MW: Array) -> IntArray:
        """Ids [M, K] of the bytes [M, W] u8 of `bytepacked_indices`."""
        return _unpacked(packed_MW, self.index_bits, self.k)

    def log_probs(self, packed_MW: Array) -> Array:
        """Log-probabilities [M, K] f64 of the bytes [M, W] u8 of `compressed_logprobs`. Where they are a fit they are
        sorted: the teacher's were, and a sorted fit is nowhere farther from them in sum."""
        exact_MK, rest = _floats(packed_MW, self.exact_dtype, self.exact_k)
        count = self.k - self.exact_k
        fit_MK = np.zeros((len(packed_MW), count))
        if self.polynomial_terms:
            coefficients, rest = _floats(rest, self.term_dtype, len(self.polynomial_terms))
            fit_MK += coefficients @ self._powers(count).T
        start = 0
        for part in self.residual_bins:
            scale, rest = _floats(rest, part.scale_dtype, 1)
            numbers = _unpacked(rest[:, : part.packed_bytes], part.element_bits, part.num_elements)
            signed = 2 * numbers - 1 if part.element_bits == 1 else numbers - (1 << part.element_bits - 1)
            fit_MK[:, start : start + part.num_elements] += signed * scale
            rest, start = rest[:, part.packed_bytes :], start + part.num_elements
        values_MK = np.concatenate([exact_MK, fit_MK], axis=1)
        if self.delta_encoding:
            values_MK = np.cumsum(values_MK, axis=1)
        return -np.sort(-values_MK, axis=1) if self.approximate else values_MK

    def _powers(self, count: int) -> Array:
        """The polynomial's terms [count, terms] at each rank."""
        rank = np.linspace(0.0, 1.0, count) if self.normalize_t else np.arange(count, dtype=np.float64)
        named = {"sqrt": np.sqrt, "exp": np.exp}
        terms = [named[term](rank) if isinstance(term, str) else rank**term for term in self.polynomial_terms or ()]
        return np.stack(terms, axis=-1)


def _floats(packed_MW: Array, dtype: str, count: int) -> tuple[Array, Array]:
    """Floats [M, count] f64 at the start of some bytes [M, W], and the bytes behind them."""
    size = WIDTHS[dtype] * count
    head = np.ascontiguousarray(packed_MW[:, :size])
    if dtype == "bfloat16":
        values: Array = (head.view("<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = head.view(np.dtype(dtype).newbyteorder("<"))
    return values.astype(np.float64), packed_MW[:, size:]


def _unpacked(packed_MW: Array, bits: int, count: int) -> IntArray:
    """Integers [M, count] i64 of some bits each, most significant first."""
    flags = np.unpackbits(packed_MW, axis=1, count=bits * count).reshape(len(packed_MW), count, bits)
    return flags @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))


def read_compression(file: str, paths: Sequence[Path]) -> tuple[Compression, Path]:
    """The configuration in a YAML file, by default the one beside the first of some parquet files: DistillKit's own, or
    its settings of a run, which hold it as `logprob_compressor`. Raises InvalidInputError."""
    path = Path(file).expanduser() if file else paths[0].parent / FILE
    if not path.is_file():
        raise InvalidInputError(
            f"{path} is not there, and only DistillKit's configuration tells how {paths[0]} was compressed; name it by "
            "--compression FILE.yaml"
        )
    try:
        import yaml
    except ImportError as error:
        raise InvalidInputError(f"PyYAML is not installed ({error}); pip install 'kdcache[parquet]'") from error
    try:
        load: Any = yaml.safe_load
        record = load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidInputError(f"{path} cannot be read as YAML ({error}); name DistillKit's configuration") from error
    record = _compressor(record, path)
    try:
        compression = Compression.model_validate(record)
    except ValidationError as error:
        raise InvalidInputError(f"{path} is no compression that kdcache decodes: {explain(error)}") from error
    _require_decodable(compression, path)
    return compression, path


def _compressor(record: Any, path: Path) -> Any:
    """The part of a configuration that describes the compression."""
    for key in ("teacher", "logprob_compressor"):
        if isinstance(record, dict) and record.get(LEGACY):
            raise InvalidInputError(
                f"{path} is of DistillKit's {LEGACY}, whose values may be logits less their mean: no mass is known, "
                "and nothing was imported"
            )
        record = record[key] if isinstance(record, dict) and isinstance(record.get(key), dict) else record
    return record


def _require_decodable(compression: Compression, path: Path) -> None:
    """Raises InvalidInputError for what this file does not decode as DistillKit does."""
    bins = sum(part.num_elements for part in compression.residual_bins)
    if compression.exact_k > compression.k or bins > compression.k - compression.exact_k:
        raise InvalidInputError(
            f"{path}: k is {compression.k}, and exact_k {compression.exact_k} with {bins} residuals are more; name the "
            "configuration of the capture"
        )
    if compression.polynomial_terms and WIDTHS[compression.term_dtype] == 2:
        raise InvalidInputError(
            f"{path}: term_dtype is {compression.term_dtype}: DistillKit evaluates such polynomials in 16 bits, whose "
            "rounding is not decoded; nothing was imported"
        )
