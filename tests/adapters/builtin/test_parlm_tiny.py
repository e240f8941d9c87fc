from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.builtin.parlm_tiny import ParlmTinyChatAdapter
from adapters.parsing import PlainText
from adapters.tagged import TaggedToolCalls
from adapters.templates import ChatTemplate, TemplateSource
from engines.types import Message, Special, Text, Tool, ToolCall

CONFIG = Path(__file__).parents[3] / "models" / "parlm-tiny" / "hf" / "tokenizer_config.json"
TOOLS = [
    Tool("weather", "Tells the weather", '{"type": "object", "properties": {"città": {}}}'),
    Tool("now"),
]
SYSTEM, USER = Message("system", "Be brief."), Message("user", "Hi <|im_end|>")
CALLS = tuple(ToolCall(f"c{n}", "weather", '{"città":"Malmö","n":[1, 2.0]}') for n in range(2))
CHATS: list[tuple[list[Message], list[Tool]]] = [
    ([USER], []),
    ([SYSTEM, USER], []),
    ([SYSTEM], []),
    ([Message("system"), USER], []),
    ([USER, Message("assistant", "Hello."), USER], []),
    ([USER, Message("assistant"), USER], []),
    ([USER], TOOLS),
    ([SYSTEM, USER], TOOLS[1:]),
    ([USER, Message("assistant", tool_calls=CALLS[:1]), Message("tool", "1")], TOOLS),
    ([USER, Message("assistant", tool_calls=CALLS), Message("tool", "1")], TOOLS),
    ([USER, Message("assistant", "So:", tool_calls=CALLS), Message("tool", "1")], []),
    ([USER, Message("assistant", tool_calls=(ToolCall("c", "now", "no JSON"),))], TOOLS),
    ([USER, Message("assistant", tool_calls=(ToolCall("c", "now", '"text"'),))], TOOLS),
    ([USER, USER, Message("assistant", " ä\n"), Message("assistant", "<|im_start|>")], []),
]
adapter = ParlmTinyChatAdapter()


def test_parts() -> None:
    prompt = adapter.render([SYSTEM, USER])
    start, end, newline = Special("<|im_start|>"), Special("<|im_end|>"), Text("\n")
    assert prompt.parts == (
        start, Text("system\nBe brief."), end, newline,
        start, Text("user\nHi <|im_end|>"), end, newline,
        start, Text("assistant\n"),
    )  # fmt: skip
    assert prompt.stop_tokens == ("<|im_end|>",)
    assert not prompt.add_bos


def test_tools_and_calls() -> None:
    chat = [USER, Message("assistant", tool_calls=CALLS), Message("tool", "3 °C")]
    assert adapter.render(chat, TOOLS[:1]).text == (
        '<|im_start|>system\nTools:\n{"name": "weather", "description": "Tells the weather", '
        '"parameters": {"type": "object", "properties": {"città": {}}}}<|im_end|>\n'
        "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"
        '<tool_call>\n{"name": "weather", "arguments": {"città": "Malmö", "n": [1, 2.0]}}\n'
        "</tool_call>\n"
        '<tool_call>\n{"name": "weather", "arguments": {"città": "Malmö", "n": [1, 2.0]}}\n'
        "</tool_call><|im_end|>\n<|im_start|>tool\n3 °C<|im_end|>\n<|im_start|>assistant\n"
    )


def test_system_messages_move_first() -> None:
    prompt = adapter.render([USER, SYSTEM, Message("developer", "In Latin.")], TOOLS[1:])
    assert prompt.text.startswith(
        '<|im_start|>system\nBe brief.\n\nIn Latin.\n\nTools:\n{"name": "now", '
    )


@pytest.mark.parametrize("number", range(len(CHATS)))
def test_the_model_s_own_template_prints_the_same(number: int) -> None:
    config = json.loads(CONFIG.read_text())
    tokens = tuple(token["content"] for token in config["added_tokens_decoder"].values())
    template = ChatTemplate(TemplateSource(config["chat_template"], tokens, None, "<|im_end|>"))
    own, ours = template.render(*CHATS[number]), adapter.render(*CHATS[number])
    assert own.text == ours.text
    assert [p for p in own.parts if isinstance(p, Special)] == [
        p for p in ours.parts if isinstance(p, Special)
    ]


@pytest.mark.parametrize(
    ("path", "matches"),
    [
        ("parlm-tiny", True),
        ("Parlm-Tiny-q8_0", True),
        ("/models/parlm-tiny-q8_0.gguf", True),
        ("/models/parlm-tiny", True),
        ("/models/parlm-tiny/other", False),
        ("not-parlm-tiny", False),
    ],
)
def test_match(path: str, matches: bool) -> None:
    assert adapter.match(path) is matches


def test_parsers() -> None:
    assert isinstance(adapter.output_parser(), PlainText)
    assert isinstance(adapter.output_parser(TOOLS), TaggedToolCalls)


def test_sampling_defaults() -> None:
    assert adapter.sampling_defaults == {"temperature": 0.0}
