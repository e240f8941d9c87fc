"""Which adapter a model gets, by its name, its path and its files: one table each."""

from __future__ import annotations

import logging

import pytest

from adapters.errors import UnknownAdapter
from adapters.registry import chat_adapters, find_adapters, llm_adapters
from engines.types import ModelDescription


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("vicuna-13b", "vicuna"),
        ("vicuna-7b", "vicuna"),
        ("lmsys/vicuna-13b-v1.5-16k", "vicuna"),
        ("ggml-vicuna-13b-1.1-q4_0.gguf", "vicuna"),
        ("Wizard-Vicuna-13B", "vicuna"),
        ("stable-vicuna-13b", "default"),
        ("gpt4-x-vicuna-13b", "default"),
        ("llava-v1.5-vicuna-7b", "default"),
        ("chatglm-6b", "chatglm"),
        ("chatglm-6b-int4", "chatglm"),
        ("ChatGLM_6B", "chatglm"),
        ("chatglm", "chatglm"),
        ("chatglm2-6b", "chatglm2"),
        ("chatglm2-6b-32k", "chatglm2"),
        ("chatglm-2-6b", "chatglm2"),
        ("chatglm3-6b", "default"),
        ("chatglm-3", "default"),
        ("glm-4-9b-chat", "default"),
        ("visualglm-6b", "default"),
        ("flan-t5-base", "flan-t5"),
        ("google/flan_t5_xl", "flan-t5"),
        ("t5-base", "default"),
        ("guanaco-33b-merged", "guanaco"),
        ("guanaco-7B-HF", "guanaco"),
        ("llama-2-7b-guanaco", "default"),
        ("falcon-40b", "falcon"),
        ("tiiuae/falcon-7b-instruct", "falcon"),
        ("falcon-rw-1b", "falcon"),
        ("falcon-180b-chat", "default"),
        ("falcon-11b", "default"),
        ("Falcon3-7B-Instruct", "default"),
        ("falcon-h1-7b-instruct", "default"),
        ("falcon-mamba-7b", "default"),
        ("gpt4all-falcon", "default"),
        ("gorilla-7b", "gorilla"),
        ("gorilla-falcon-7b-hf-v0", "gorilla"),
        ("gorilla-mpt-7b-hf-v0", "gorilla"),
        ("gorilla-openfunctions-v2", "default"),
        ("llama-2-7b", "llama-2"),
        ("llama-2-13b", "llama-2"),
        ("meta-llama/Llama-2-70b-chat-hf", "llama-2"),
        ("llama2-7b.Q4_0.gguf", "llama-2"),
        ("llama-7b", "default"),
        ("llama-2.5", "default"),
        ("Meta-Llama-3-8B-Instruct", "default"),
        ("Llama-3.2-1B", "default"),
        ("nous-hermes-llama2-13b", "default"),
        ("vicuna-on-llama-2", "vicuna"),
        ("gptj-6b", "gptj"),
        ("ggml-gpt4all-j-v1.3-groovy.bin", "gptj"),
        ("nomic-ai/gpt4all-j", "gptj"),
        ("gpt-j-6b", "default"),
        ("proxyllm", "proxyllm"),
        ("bard_proxyllm", "proxyllm"),
        ("proxyllm-7b", "default"),
        ("parlm-tiny", "parlm-tiny"),
    ],
)
def test_by_name(name: str, adapter: str) -> None:
    assert chat_adapters.resolve(name).name == adapter
    assert llm_adapters.resolve(name).name == adapter.replace("parlm-tiny", "default")


@pytest.mark.parametrize(
    ("path", "adapter"),
    [
        ("/models/vicuna-13b/ggml-model-q4_0.gguf", "vicuna"),
        ("/models/vicuna/llama-2-7b-chat.Q4_0.gguf", "llama-2"),
        ("/models/vicuna-tests/qwen2.5-7b/model.gguf", "default"),
        ("/models/chatglm2-6b/chatglm-6b", "chatglm"),
        ("/data/chatglm-6b/chatglm2-6b/pytorch_model-00001-of-00007.bin", "chatglm2"),
        ("/hf/models--lmsys--vicuna-7b-v1.5/snapshots/3321f76e3f527bd14065daf69dad9344", "vicuna"),
        ("/hf/models--vicuna--falcon-7b-instruct/snapshots/3321f76e3f/model.gguf", "falcon"),
        ("/models/falcon/gorilla-falcon-7b-hf-v0", "gorilla"),
        ("/models/guanaco-33b-merged/hf", "guanaco"),
        ("/home/falcon-40b/mistral.gguf", "default"),
    ],
)
def test_by_path(path: str, adapter: str) -> None:
    assert chat_adapters.resolve("my-model", path).name == adapter


def form(name: str, path: str = "", adapter: str | None = None, **files: object) -> str:
    """The name of the adapter that a model ends up with."""
    model = ModelDescription(name, path, "gguf", **files)  # type: ignore[arg-type]
    return find_adapters(name, path, adapter)[1].for_model(model).name


@pytest.mark.parametrize(
    ("name", "path", "vocab_size", "expected"),
    [
        ("vicuna-13b", "/m/vicuna-13b", 32000, "vicuna"),
        ("vicuna-13b", "/m/vicuna-13b", 32001, "vicuna-v0"),
        ("vicuna-13b", "/m/vicuna-13b-v0", 32000, "vicuna-v0"),
        ("vicuna-13b-v0", "/m/model.gguf", 0, "vicuna-v0"),
        ("vicuna-13b", "/m/vicuna-13b-v1.1", 32001, "vicuna"),
        ("vicuna-13b-v0", "/m/vicuna-13b-v1.5", 0, "vicuna"),
        ("vicuna-13b", "/m/vicuna-13b-v0/hf", 0, "vicuna-v0"),
    ],
)
def test_the_releases_of_vicuna(name: str, path: str, vocab_size: int, expected: str) -> None:
    assert form(name, path, architecture="llama", vocab_size=vocab_size) == expected


@pytest.mark.parametrize(
    ("name", "path", "template", "expected"),
    [
        ("llama-2-7b", "", None, "llama-2"),
        ("llama-2-7b", "/m/llama-2-7b", None, "llama-2"),
        ("llama-2-7b", "/m/llama-2-7b.gguf", None, "llama-2"),
        ("llama-2-7b", "/m/Llama-2-7b-chat-hf", None, "llama-2"),
        ("llama-2-7b", "/m/Llama-2-7b-hf", None, "llama-2-base"),
        ("llama-2-7b-hf", "", None, "llama-2-base"),
        ("llama-2-7b", "/m/llama-2-7b.Q4_K_M.gguf", None, "llama-2-base"),
        ("llama-2-7b", "/m/llama-2-7b-chat.Q4_K_M.gguf", None, "llama-2"),
        ("llama-2-7b", "/m/Llama-2-7b-hf", "… [INST] …", "llama-2"),
    ],
)
def test_chat_and_base_weights_of_llama_2(
    name: str,
    path: str,
    template: str | None,
    expected: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        found = form(name, path, architecture="llama", chat_template=template)
    assert found == expected
    assert ("set LLM_ADAPTER=llama-2-chat" in caplog.text) is (expected == "llama-2-base")


@pytest.mark.parametrize(
    ("name", "path", "architecture", "expected"),
    [
        ("falcon-40b", "", "", "falcon-base"),
        ("falcon-40b", "/m/falcon-40b-instruct", "RefinedWeb", "falcon-instruct"),
        ("falcon-40b-instruct", "/m/model.gguf", "falcon", "falcon-instruct"),
        ("gorilla-7b", "/m/gorilla-7b-hf-v0", "llama", "gorilla"),
        ("gorilla-7b", "/m/gorilla-7b", "RefinedWebModel", "gorilla-falcon"),
        ("gorilla-7b", "/m/gorilla-7b", "mpt", "gorilla-mpt"),
        ("gorilla-falcon-7b-hf-v0", "", "", "gorilla-falcon"),
        ("gorilla-mpt-7b-hf-v0", "", "", "gorilla-mpt"),
    ],
)
def test_forms_by_architecture(name: str, path: str, architecture: str, expected: str) -> None:
    assert form(name, path, architecture=architecture) == expected


@pytest.mark.parametrize(
    ("architecture", "vocab_size", "expected"),
    [
        ("chatglm", 130528, "chatglm"),
        ("chatglm", 150528, "chatglm"),
        ("chatglm", 65024, "notemplate"),  # ChatGLM2 or 3
        ("t5", 32128, "flan-t5"),
        ("llama", 32000, "notemplate"),
    ],
)
def test_by_files_alone(architecture: str, vocab_size: int, expected: str) -> None:
    model = ModelDescription("m", "/m", "gguf", architecture, vocab_size)
    adapter = chat_adapters.resolve("m", "/m").for_model(model)
    assert adapter.name == "default"
    assert adapter._usual is not None and adapter._usual.name == expected


def test_a_later_chatglm_under_the_first_one_s_name() -> None:
    assert form("chatglm", architecture="chatglm", vocab_size=65024) == "chatglm2"
    assert form("chatglm", architecture="chatglm", vocab_size=417) == "chatglm"


def test_another_architecture_has_only_the_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert form("vicuna-13b", "/m/vicuna-13b", architecture="qwen2") == "notemplate"
    assert "vicuna-13b has a name of the family 'vicuna'" in caplog.text
    assert "'qwen2'" in caplog.text


def test_a_named_adapter_is_kept() -> None:
    assert form("qwen", "/m/qwen", "vicuna", architecture="qwen2") == "vicuna"
    for adapter, path in [
        ("vicuna-v0", "/m/vicuna-13b"),
        ("vicuna-v1", "/m/vicuna-13b-v0"),
        ("llama-2-chat", "/m/Llama-2-7b-hf"),
        ("falcon-instruct", "/m/falcon-7b"),
    ]:
        assert form("my-model", path, adapter, architecture="llama") == adapter
    with pytest.raises(UnknownAdapter, match="did you mean 'vicuna"):
        form("vicuna-13b", "", "vicunna")


def test_a_family_s_form_wins_over_a_template_in_its_files() -> None:
    assert form("vicuna-7b", architecture="llama", chat_template="{{ 1 }}") == "vicuna"


def test_stop_tokens_are_those_the_vocabulary_has() -> None:
    tokens = (">>TITLE<<", "<|endoftext|>", "<|im_end|>")
    for name, expected in [
        ("falcon-40b-instruct", ("<|endoftext|>", ">>TITLE<<")),
        ("gorilla-mpt-7b-hf-v0", ("<|endoftext|>", "<|im_end|>")),
    ]:
        for known, stops in [(tokens, expected), ((), expected[:1])]:
            model = ModelDescription(name, special_tokens=known)
            prompt = chat_adapters.resolve(name).for_model(model).render([])
            assert getattr(prompt, "stop_tokens", None) == stops


def test_every_family_has_both_adapters_and_an_engine_where_only_one_can_run_it() -> None:
    engines = {adapter.name: adapter.engine for adapter in llm_adapters.adapters}
    assert {name: engine for name, engine in engines.items() if engine} == {
        "chatglm": "transformers",
        "flan-t5": "transformers",
        "proxyllm": "proxy",
    }
