"""What only one family does, where it needs no file of its own."""

from __future__ import annotations

import pytest

from adapters.registry import chat_adapters
from engines.types import Message, MessagesPrompt, PartsPrompt, TextDelta, Tool

CHAT = [Message("user", "Hi")]


@pytest.mark.parametrize(
    "name", ["vicuna", "vicuna-v0", "guanaco", "falcon-instruct", "gorilla", "llama-2", "gptj"]
)
def test_answers_lose_the_label_s_blank_and_what_precedes_a_stop(name: str) -> None:
    parser = chat_adapters.by_name(name).output_parser()
    events = [*parser.feed(TextDelta(0, " Yes,")), *parser.feed(TextDelta(0, " no.\n"))]
    events += parser.finish(0, "stop")
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Yes,", " no."]


@pytest.mark.parametrize("name", ["falcon-base", "llama-2-base"])
def test_a_base_model_s_continuation_stays_as_it_is(name: str) -> None:
    delta = TextDelta(0, " and so\n")
    assert chat_adapters.by_name(name).output_parser().feed(delta) == [delta]


def test_falcon_takes_blank_lines_out_of_messages_in_one_pass() -> None:
    chat = [Message("system", "a\n\nb"), Message("user", "c\r\n\r\nd\n\n\n\ne")]
    prompt = chat_adapters.by_name("falcon-instruct").render(chat)
    assert isinstance(prompt, PartsPrompt)
    assert prompt.text == "a\n\nb\n\nUser: c\nd\n\ne\n\nAssistant:"


def test_gorilla_s_falcon_begins_with_a_blank_or_the_system_s_text() -> None:
    adapter = chat_adapters.by_name("gorilla-falcon")
    chat = [*CHAT, Message("assistant", "Yo"), *CHAT]
    own, given = adapter.render(chat), adapter.render([Message("system", "S."), *CHAT])
    assert isinstance(own, PartsPrompt) and isinstance(given, PartsPrompt)
    assert own.text == " User: Hi Assistant: Yo<|endoftext|>User: Hi Assistant:"
    assert given.text == "S. User: Hi Assistant:"


def test_gorilla_s_mpt_writes_another_system_text_like_its_own() -> None:
    prompt = chat_adapters.by_name("gorilla-mpt").render([Message("system", "S."), *CHAT])
    assert isinstance(prompt, PartsPrompt)
    assert prompt.text == "system\nS.\n user\nHi assistant\n"


def test_a_proxied_model_gets_messages_and_tools() -> None:
    adapter = chat_adapters.by_name("proxyllm")
    assert adapter.render(CHAT, [Tool("f")]) == MessagesPrompt((*CHAT,), (Tool("f"),))
    delta = TextDelta(0, " x ")
    assert adapter.output_parser().feed(delta) == [delta]


def test_stops() -> None:
    stops = {}
    for name in chat_adapters.names():
        prompt = chat_adapters.by_name(name).render(CHAT)
        if isinstance(prompt, PartsPrompt):
            stops[name] = (prompt.stop, prompt.stop_tokens)
    eos, end_of_text = ("</s>",), ("<|endoftext|>",)
    assert stops == {
        "chatglm": ((), ("<eop>",)),
        "chatglm2": ((), eos),
        "falcon": (("\nUser",), end_of_text),
        "falcon-base": ((), end_of_text),
        "falcon-instruct": (("\nUser",), end_of_text),
        "flan-t5": ((), eos),
        "gorilla": ((), eos),
        "gorilla-falcon": ((), end_of_text),
        "gorilla-mpt": ((), end_of_text),
        "gptj": (("### Human", "### Prompt"), end_of_text),
        "guanaco": (("###",), eos),
        "llama-2": ((), eos),
        "llama-2-base": ((), eos),
        "llama-2-chat": ((), eos),
        "parlm-tiny": ((), ("<|im_end|>",)),
        "vicuna": ((), eos),
        "vicuna-v1": ((), eos),
        "vicuna-v0": (("###",), eos),
        "vicuna-v0-zero-shot": (("###",), eos),
    }
