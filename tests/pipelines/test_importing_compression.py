"""DistillKit's compression: what its configurations put into bytes comes back, and what is not decoded is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.errors import BadLogitsError, InvalidInputError
from kdcache.pipelines.importing.compression import Compression, read_compression
from kdcache.pipelines.importing.settings import ImportSettings
from kdcache.pipelines.importing.stage import import_store
from kdcache.store.store import Store
from tests.kits.captured import C, Row, compress, known_rows, pack_bits, write_packed

WIDE = 40
BINS = [
    {"scale_dtype": "float16", "element_bits": 8, "num_elements": 12},
    {"scale_dtype": "bfloat16", "element_bits": 3, "num_elements": 10},
    {"scale_dtype": "float32", "element_bits": 1, "num_elements": 5},
]
POLYNOMIAL = {"polynomial_terms": [0, 1, 2, 3, 4, "sqrt"], "exact_dtype": "bfloat16"}


def falling(rows: int = 30) -> Any:
    """Log-probabilities [rows, WIDE] that fall, of wide distributions."""
    values = -np.sort(np.random.default_rng(0).exponential(2.0, (rows, 400)), axis=1)[:, :WIDE]
    return values - 3.0


def config(**changes: Any) -> dict[str, Any]:
    base = {
        "d": 151_936, "k": WIDE, "exact_k": WIDE, "exact_dtype": "float32", "polynomial_terms": None,
        "term_dtype": "float32", "residual_bins": [], "delta_encoding": False, "error_diffusion": False,
        "normalize_t": False,
    }  # fmt: skip
    return base | changes


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, 1e-6),
        ({"exact_dtype": "float64"}, 1e-12),
        ({"exact_dtype": "float16"}, 0.01),
        ({"exact_dtype": "bfloat16"}, 0.04),
        ({"delta_encoding": True}, 1e-5),
        ({"exact_k": 13, **POLYNOMIAL, "residual_bins": BINS}, 0.1),
        ({"exact_k": 28, "residual_bins": BINS[:1]}, 0.05),
        ({"exact_k": 16, **POLYNOMIAL}, 0.1),
        ({"exact_k": 16, **POLYNOMIAL, "residual_bins": BINS[:1]}, 0.1),
        ({"exact_k": 16, **POLYNOMIAL, "normalize_t": True}, 0.1),
        ({"exact_k": 32, "delta_encoding": True, "polynomial_terms": [0, 1, 2]}, 0.1),
    ],
)
def test_log_probabilities_come_back(changes: dict[str, Any], error: float) -> None:
    values, record = falling(), config(**changes)
    compression = Compression.model_validate(record)
    packed = compress(values, record)
    assert packed.shape == (30, compression.log_prob_bytes)
    decoded = compression.log_probs(packed)
    assert (np.diff(decoded, axis=1) <= 0).all()
    assert np.abs(decoded - values).max() < error


@pytest.mark.parametrize(("classes", "bits"), [(97, 7), (128, 7), (129, 8), (65_536, 16), (151_936, 18), (2**24, 24)])
def test_ids_of_any_number_of_bits_come_back(classes: int, bits: int) -> None:
    ids = np.random.default_rng(0).integers(0, classes, (20, WIDE))
    compression = Compression.model_validate(config(d=classes))
    assert compression.index_bits == bits
    assert np.array_equal(compression.classes(pack_bits(ids, bits)), ids)


def test_a_token_as_its_bytes() -> None:
    """Worked by hand: two bf16, three ids of 7 bits, most significant first."""
    compression = Compression.model_validate(config(d=97, k=3, exact_k=2, exact_dtype="bfloat16", polynomial_terms=[0]))
    ids = np.array([[0b10000010, 0b00001000, 0b00011000]], np.uint8)
    assert compression.classes(ids).tolist() == [[65, 2, 3]]
    values = np.array([[0x80, 0xBF, 0x00, 0xC0, 0x00, 0x00, 0x40, 0xC0]], np.uint8)  # -1, -2, and -3 as f32
    assert compression.log_probs(values).tolist() == [[-1.0, -2.0, -3.0]]


def test_the_configuration_is_found_where_it_lies(tmp_path: Path) -> None:
    """Beside the files as the capture wrote it, or in the settings of a run."""
    folder = write_packed(tmp_path / "a", known_rows())
    paths = [folder / "data_0.parquet"]
    compression, path = read_compression("", paths)
    assert (compression.d, path) == (C, folder / "compression_config.yaml")
    run = tmp_path / "run.yaml"
    run.write_text("model: x\nteacher:\n  kind: dataset\n  logprob_compressor:\n    d: 97\n    k: 6\n    exact_k: 6\n")
    assert read_compression(str(run), paths)[0].delta_encoding  # as DistillKit has it where nobody says


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("d: [", "cannot be read as YAML"),
        ("d: 97\nk: 6\nexact_k: 6\nshape: round\n", "is no compression that kdcache decodes: shape"),
        ("d: 97\nk: 6\n", "is no compression that kdcache decodes: exact_k"),
        ("teacher:\n  legacy_logit_compression:\n    k: 6\n", "legacy_logit_compression, whose values may be logits"),
        ("d: 97\nk: 6\nexact_k: 7\n", r"k is 6, and exact_k 7 with 0 residuals are more"),
        (
            "d: 97\nk: 6\nexact_k: 1\npolynomial_terms: [0, 1]\nterm_dtype: bfloat16\n",
            "term_dtype is bfloat16: DistillKit evaluates such polynomials in 16 bits",
        ),
    ],
)
def test_a_configuration_that_is_not_decoded_is_refused(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(InvalidInputError, match=error):
        read_compression(str(tmp_path / "own.yaml"), [tmp_path / "a.parquet"])


def peaked() -> list[Row]:
    """Rows of which a line through log-probabilities makes more than 1: five classes have nearly all, one alike."""
    rows = known_rows((12, 9))
    for row in rows:
        logits = row.log_probs.copy()
        np.put_along_axis(logits, row.best[:, :5], 9.0, axis=1)
        row.log_probs[:] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return rows


def test_a_fit_above_one_is_refused_or_normalised(tmp_path: Path) -> None:
    rows = peaked()
    folder = write_packed(tmp_path / "a", rows, exact_k=0, polynomial_terms=[0, 1])
    words = {"layout": "distillkit", "teacher": "made-up"}
    with pytest.raises(BadLogitsError, match=r"data_0.parquet: row 0, token 0: the probabilities sum to .*--normalise"):
        import_store([str(folder)], f"{tmp_path}/a.kd", settings=ImportSettings(), **words)  # type: ignore[arg-type]
    summary = import_store(
        [str(folder)], f"{tmp_path}/b.kd", settings=ImportSettings(normalise=True), **words  # type: ignore[arg-type]
    )  # fmt: skip
    assert summary.normalised == 19
    soft = Store.open(tmp_path / "b.kd").read(0, np.arange(11))
    assert np.allclose(np.exp(soft.log_probs(1.0)).sum(axis=1), 1.0)
    assert np.array_equal(soft.classes, rows[0].best)


def test_another_configuration_is_seen_by_its_bytes(tmp_path: Path) -> None:
    folder = write_packed(tmp_path / "a", known_rows())
    write_packed(tmp_path / "b", known_rows(), exact_dtype="bfloat16")
    with pytest.raises(
        InvalidInputError, match=r"24 bytes a token in compressed_logprobs, and its configuration takes 12"
    ):
        import_store(
            [str(folder)], f"{tmp_path}/a.kd", layout="distillkit", teacher="made-up",
            settings=ImportSettings(compression=f"{tmp_path}/b/compression_config.yaml"),
        )  # fmt: skip
    (folder / "compression_config.yaml").unlink()
    with pytest.raises(InvalidInputError, match=r"compression_config.yaml is not there, .* name it by --compression"):
        import_store(
            [str(folder)], f"{tmp_path}/a.kd", layout="distillkit", teacher="made-up", settings=ImportSettings()
        )
    assert not (tmp_path / "a.kd").exists()
