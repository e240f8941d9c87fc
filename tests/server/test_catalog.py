"""The catalogue: complete, without contradictions, and honest about what was not checked."""

from __future__ import annotations

import re

import pytest

from engines.architectures import engine_support
from server.catalog import CatalogEntry, catalog
from server.memory import BITS_PER_WEIGHT
from server.settings import MODEL_NAME

ENTRIES = list(catalog())
THE_NAMES = (
    *("vicuna-13b", "vicuna-7b", "chatglm-6b", "chatglm2-6b", "flan-t5-base"),
    *("guanaco-33b-merged", "falcon-40b", "gorilla-7b", "llama-2-7b", "llama-2-13b"),
    *("gptj-6b", "proxyllm"),
)


def name(entry: CatalogEntry) -> str:
    return entry.name


@pytest.mark.parametrize("wanted", THE_NAMES)
def test_has_every_name_parlm_promises(wanted: str) -> None:
    entry = catalog().find(wanted)
    assert entry is not None
    assert entry.name == wanted


def test_no_name_means_two_models() -> None:
    names = [name.lower() for entry in ENTRIES for name in dict.fromkeys(entry.names)]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_an_entry_is_whole(entry: CatalogEntry) -> None:
    assert MODEL_NAME.fullmatch(entry.name)
    assert entry.name == entry.name.lower()
    if entry.name == "proxyllm":
        return
    assert entry.repo or entry.gguf or entry.url
    for repo in (entry.repo, entry.gguf):
        assert repo is None or re.fullmatch(r"[\w.-]+/[\w.-]+", repo)
    assert entry.parameters > 0
    assert entry.context_length > 0
    assert set(entry.unverified) <= set(CatalogEntry.model_fields)
    assert entry.quant is None or entry.quant in BITS_PER_WEIGHT


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.repo], ids=name)
def test_some_engine_runs_the_weights(entry: CatalogEntry) -> None:
    assert entry.architecture in engine_support("transformers").runs


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.gguf], ids=name)
def test_llama_cpp_runs_the_gguf_files(entry: CatalogEntry) -> None:
    architecture = entry.gguf_architecture or entry.architecture
    assert architecture in engine_support("llama_cpp").runs


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.url], ids=name)
def test_a_file_at_an_address_can_be_checked(entry: CatalogEntry) -> None:
    assert entry.url is not None
    assert entry.url.startswith("https://")
    assert re.fullmatch("[0-9a-f]{32}", entry.md5 or "")
    assert entry.size


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("lmsys/vicuna-13b-v1.5", "vicuna-13b"),
        ("Vicuna-13B-v1.5", "vicuna-13b"),
        ("llama-2-7b-chat", "llama-2-7b"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b-instruct"),
        ("zai-org/chatglm2-6b", "chatglm2-6b"),
    ],
)
def test_models_are_found_by_their_other_names(asked: str, expected: str) -> None:
    entry = catalog().find(asked)
    assert entry is not None
    assert entry.name == expected


def test_an_unknown_name_is_not_found() -> None:
    assert catalog().find("vicuna") is None


def test_only_the_models_that_need_it_may_be_pickles() -> None:
    assert {e.name for e in ENTRIES if e.pickle} == {"chatglm-6b", "chatglm2-6b"}
