"""What the catalogue says of this machine."""

from __future__ import annotations

import pytest

from server.catalog import CatalogEntry, catalog
from server.machine import Machine
from server.outlook import Outlook, nearest, outlook
from tests.server.machines import ENGINES, GPU_SERVER, LAPTOP, MAC, SERVER, machine


def entry(name: str) -> CatalogEntry:
    found = catalog().find(name)
    assert found is not None
    return found


def look(name: str, on: Machine) -> Outlook:
    return outlook(entry(name), on, ENGINES)


@pytest.mark.parametrize(
    ("name", "on", "engine", "quant"),
    [
        ("vicuna-13b", GPU_SERVER, "vllm", "F16"),
        ("vicuna-13b", LAPTOP, "llama_cpp", "Q4_K_M"),
        ("vicuna-13b", MAC, "llama_cpp", "Q4_K_M"),
        ("falcon-40b", GPU_SERVER, "llama_cpp", "Q4_K_M"),
        ("falcon-40b", SERVER, "llama_cpp", "Q4_K_M"),
        ("flan-t5-base", GPU_SERVER, "transformers", "F16"),
        ("flan-t5-base", LAPTOP, "transformers", "F16"),
        ("chatglm-6b", GPU_SERVER, "transformers", "F16"),
        ("chatglm2-6b", GPU_SERVER, "vllm", "F16"),
        ("chatglm2-6b", SERVER, "transformers", "F16"),
        ("gptj-6b", MAC, "llama_cpp", "Q4_0_2023"),
        ("gorilla-7b", GPU_SERVER, "llama_cpp", "Q4_K_M"),
    ],
)
def test_each_platform_has_its_engine(name: str, on: Machine, engine: str, quant: str) -> None:
    found = look(name, on)
    assert found.engine == engine
    assert found.build is not None
    assert found.build.quant == quant
    assert found.to_install is None


def test_what_does_not_fit_says_so() -> None:
    found = look("falcon-40b", LAPTOP)
    assert found.engine is None
    assert "gguf Q4_K_M needs about 30.3 GB with llama_cpp, of 16.0 GB" in found.reason


def test_an_engine_that_is_installed_comes_first() -> None:
    on = machine(64, gpus=GPU_SERVER.gpus, installed=frozenset({"llama_cpp"}))
    assert look("vicuna-13b", on).engine == "llama_cpp"
    bare = machine(64, installed=frozenset())
    assert "make install" in (look("vicuna-13b", bare).to_install or "")


def test_proxyllm_needs_no_weights() -> None:
    assert look("proxyllm", LAPTOP).engine == "proxy"


@pytest.mark.parametrize(
    ("name", "on", "expected"),
    [
        ("falcon-40b", machine(32), "Q4_K_M"),
        ("falcon-40b", machine(64), "Q8_0"),
        ("vicuna-13b", LAPTOP, "Q6_K"),
        ("guanaco-33b-merged", machine(16), "Q2_K"),
    ],
)
def test_the_nearest_thing_is_a_smaller_quantisation(name: str, on: Machine, expected: str) -> None:
    sentence = nearest(entry(name), on, catalog())
    assert f"`parlm pull {name} --quant {expected}`" in sentence


def test_else_the_largest_model_that_fits() -> None:
    sentence = nearest(entry("llama-3.3-70b-instruct"), machine(8), catalog())
    assert "`parlm pull " in sentence
    assert "--quant" not in sentence
    pulled = sentence.split("`parlm pull ")[1].split("`")[0]
    assert entry(pulled).architecture == "llama"


def test_else_the_built_in_one() -> None:
    assert "parlm-tiny" in nearest(None, machine(None), catalog())
