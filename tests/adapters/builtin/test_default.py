from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.base import BaseChatAdapter
from adapters.builtin.default import DefaultChatAdapter, DefaultLLMAdapter, fit
from adapters.errors import TemplateError, UnsupportedChat
from adapters.parsing import PlainText
from adapters.probe import Abilities
from adapters.templates import TemplateSource
from engines.types import (
    Message,
    MessagesPrompt,
    ModelDescription,
    PartsPrompt,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from tests.adapters.shapes import CHATML, LLAMA_2, LLAMA_3, MISTRAL

USER, ANSWER = Message("user", "Hi"), Message("assistant", "Hello.")
SYSTEM = Message("system", "Be brief.")
TAGS = TemplateSource(
    "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}{{ tools }}"
    "{# <tool_call> and </think> #}"
)


def adapter_of(source: TemplateSource) -> BaseChatAdapter:
    model = ModelDescription(
        "m",
        "/models/m",
        "safetensors",
        chat_template=source.text,
        bos_token=source.bos_token,
        eos_token=source.eos_token,
        special_tokens=source.special_tokens,
    )
    return DefaultChatAdapter().for_model(model)


def rendered(adapter: BaseChatAdapter, *messages: Message) -> PartsPrompt:
    prompt = adapter.render(messages)
    assert isinstance(prompt, PartsPrompt)
    return prompt


def test_a_model_s_own_template() -> None:
    prompt = rendered(adapter_of(CHATML), SYSTEM, USER)
    assert prompt.text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi")
    assert prompt.stop_tokens == ("<|endoftext|>", "<|im_end|>")


def test_what_a_template_cannot_express_is_fitted() -> None:
    adapter = adapter_of(MISTRAL)
    prompt = rendered(adapter, SYSTEM, USER, USER, ANSWER, USER)
    assert prompt.text == "<s>[INST] Be brief.\n\nHi\n\nHi[/INST] Hello.</s>[INST] Hi[/INST]"


def test_system_messages_are_joined_where_a_template_takes_one() -> None:
    prompt = rendered(adapter_of(LLAMA_2), SYSTEM, USER, ANSWER, SYSTEM, USER)
    assert prompt.text.startswith("<s>[INST] <<SYS>>\nBe brief.\n\nBe brief.\n<</SYS>>\n\nHi")


@pytest.mark.parametrize(
    ("chat", "fitted"),
    [
        ([SYSTEM], [Message("user", "Be brief.")]),
        ([SYSTEM, ANSWER], [Message("user", "Be brief."), ANSWER]),
        ([ANSWER, SYSTEM, USER], [ANSWER, Message("user", "Be brief.\n\nHi")]),
        ([USER, Message("system")], [USER]),
        ([], []),
    ],
)
def test_system_text_goes_to_the_first_user_message(
    chat: list[Message], fitted: list[Message]
) -> None:
    assert fit(chat, Abilities(system=False, late_system=False)) == fitted


def test_results_of_tools_are_not_joined() -> None:
    chat = [Message("tool", "1"), Message("tool", "2"), ANSWER, ANSWER]
    joined = [*chat[:2], Message("assistant", "Hello.\n\nHello.")]
    assert fit(chat, Abilities(repeated_roles=False)) == joined


def test_ids_of_calls_are_shortened_alike() -> None:
    call = ToolCall("call_0123456789abcdef", "f", "{}")
    chat = [Message("assistant", tool_calls=(call,)), Message("tool", "1", tool_call_id=call.id)]
    calling, result = fit(chat, Abilities(long_call_ids=False))
    assert calling.tool_calls[0].id == result.tool_call_id
    assert len(result.tool_call_id or "") == 9
    assert fit(chat, Abilities()) == chat


def test_tools_need_a_form() -> None:
    adapter = adapter_of(CHATML)
    with pytest.raises(UnsupportedChat, match="no form for tools") as raised:
        adapter.render([USER], [Tool("f")])
    assert raised.value.param == "tools"
    with pytest.raises(UnsupportedChat, match="no form for results of tools"):
        adapter.render([USER, Message("tool", "1")])


def test_a_template_with_tools() -> None:
    prompt = adapter_of(LLAMA_3).render([USER], [Tool("weather")])
    assert isinstance(prompt, PartsPrompt) and '"name": "weather"' in prompt.text


def test_parsers_follow_the_tags_of_the_template() -> None:
    parser = adapter_of(TAGS).output_parser([Tool("f")])
    events = parser.feed(TextDelta(0, '<think>Hm</think><tool_call>{"name": "f"}</tool_call>'))
    assert sum(isinstance(event, ToolCallDelta) for event in events) == 2
    assert not any(isinstance(event, TextDelta) for event in events)


def test_calls_are_not_looked_for_without_tools() -> None:
    text = '<tool_call>{"name": "f"}</tool_call>'
    assert adapter_of(TAGS).output_parser().feed(TextDelta(0, text)) == [TextDelta(0, text)]
    assert isinstance(adapter_of(CHATML).output_parser([Tool("f")]), PlainText)


def test_a_broken_template_stops_the_start() -> None:
    with pytest.raises(TemplateError, match="the chat template of 'm' does not work"):
        adapter_of(TemplateSource("{{ 'a' * 2000000000 }}"))


def test_chatml_without_a_template() -> None:
    adapter = DefaultChatAdapter().for_model(
        ModelDescription("m", "/m", "gguf", special_tokens=("<|im_start|>", "<|im_end|>"))
    )
    assert rendered(adapter, USER).text.startswith("<|im_start|>user\nHi")
    with pytest.raises(UnsupportedChat):
        adapter.render([USER], [Tool("f")])


def test_no_template_at_all() -> None:
    adapter = DefaultChatAdapter().for_model(ModelDescription("m", "/m", "gguf"))
    with pytest.raises(UnsupportedChat, match="use /v1/completions or name an adapter"):
        adapter.render([USER])


def test_a_model_without_files_gets_messages() -> None:
    adapter = DefaultChatAdapter().for_model(ModelDescription("echo"))
    assert adapter.render([USER]) == MessagesPrompt((USER,))


@pytest.mark.parametrize(
    ("config", "auto_class"),
    [
        ({"model_type": "llama"}, "AutoModelForCausalLM"),
        ({"model_type": "t5"}, "AutoModelForSeq2SeqLM"),
        ({"model_type": "own", "is_encoder_decoder": True}, "AutoModelForSeq2SeqLM"),
    ],
)
def test_loader(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], auto_class: str) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    def from_pretrained(path: str, **options: Any) -> str:
        seen.append((path, options))
        return "loaded"

    auto = SimpleNamespace(from_pretrained=from_pretrained)
    read = SimpleNamespace(get_config_dict=lambda _: (config, {}))
    fake = SimpleNamespace(AutoTokenizer=auto, PretrainedConfig=read)
    setattr(fake, auto_class, auto)
    monkeypatch.setitem(sys.modules, "transformers", fake)
    assert DefaultLLMAdapter().loader("/m", {"device_map": "cpu"}) == ("loaded", "loaded")
    assert seen[0] == ("/m", {"trust_remote_code": False})
    assert seen[1][1] == {
        "trust_remote_code": False, "device_map": "cpu", "use_safetensors": True,
    }  # fmt: skip
