"""The formula for memory, against sizes of files that exist."""

from __future__ import annotations

import pytest

from engines.model_files import describe
from server.catalog import catalog
from server.memory import GB, in_gb, running_bytes, weights_bytes
from server.model_specs import MODELS_DIR


def test_the_built_in_model_is_as_large_as_the_formula_says() -> None:
    file = describe("parlm-tiny", MODELS_DIR / "parlm-tiny" / "parlm-tiny-q8_0.gguf")
    # A vocabulary of thousands is much beside so few weights.
    assert weights_bytes(file.parameters, "Q8_0") == pytest.approx(file.size_bytes, rel=0.1)


@pytest.mark.parametrize(
    ("quant", "gib"),
    [("Q2_K", 2.95), ("Q3_K_M", 3.74), ("Q4_K_M", 4.58), ("Q6_K", 6.14), ("Q8_0", 7.95)],
)
def test_llama_3_1_8b_as_llama_cpp_publishes_it(quant: str, gib: float) -> None:
    """Sizes of the table in tools/quantize/README.md of llama.cpp."""
    entry = catalog().find("llama-3.1-8b-instruct")
    assert entry is not None
    assert weights_bytes(entry.parameters, quant) / 2**30 == pytest.approx(gib, rel=0.01)


def test_gpt4all_j_has_the_size_that_was_published() -> None:
    entry = catalog().find("gptj-6b")
    assert entry is not None
    assert entry.size is not None
    assert entry.quant is not None
    assert weights_bytes(entry.parameters, entry.quant) == pytest.approx(entry.size, rel=0.01)


def test_falcon_40b_needs_83_gb_for_its_weights() -> None:
    entry = catalog().find("falcon-40b")
    assert entry is not None
    assert weights_bytes(entry.parameters, "BF16") == pytest.approx(83 * GB, rel=0.01)


def test_running_takes_a_fifth_more() -> None:
    assert running_bytes(10 * GB) == 12 * GB


def test_sizes_for_people() -> None:
    assert (in_gb(7_870_000_000), in_gb(99_000_000_000)) == ("7.9 GB", "99.0 GB")
    assert in_gb(141_000_000_000) == "141 GB"
