from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.builtin.chatglm import ChatGLMChatAdapter
from adapters.builtin.chatglm2 import ChatGLM2ChatAdapter
from adapters.parsing import OutputParser
from engines.types import Message, Special, Text, TextDelta

PIECES = st.lists(
    st.sampled_from(["中", "文", ",", "!", ":", ";", "?", "a", " ", "\n", "[[训练时间]]", "[[", ""])
)


def answered(parser: OutputParser, pieces: list[str]) -> str:
    events = [event for piece in pieces for event in parser.feed(TextDelta(0, piece))]
    events += parser.finish(0, "stop")
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def cleaned(text: str) -> str:
    """What the authors describe, mark by mark over the whole text."""
    text = text.strip().replace("[[训练时间]]", "2023年")
    for half, full in zip(",!:;?", "，！：；？", strict=True):
        text = re.sub(rf"(?<=[\u4e00-\u9fff]){re.escape(half)}", full, text)
        text = re.sub(rf"{re.escape(half)}(?=[\u4e00-\u9fff])", full, text)
    return text


@given(PIECES)
@example(["中,", ",文"])
@example(["a", "?", "中!", "?"])
@example(["[[训练", "时间]]", ","])
def test_a_streamed_answer_is_cleaned_like_a_whole_one(pieces: list[str]) -> None:
    assert answered(ChatGLMChatAdapter().output_parser(), pieces) == cleaned("".join(pieces))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (" 你好!\n", "你好！"),
        ("你好,a,b", "你好，a,b"),
        ("a,你", "a，你"),
        ("Is it [[训练时间]]?", "Is it 2023年？"),
        ("1:2", "1:2"),
        ("好?", "好？"),
        ("ok?", "ok?"),
    ],
)
def test_answers(raw: str, clean: str) -> None:
    assert answered(ChatGLMChatAdapter().output_parser(), [*raw]) == clean


def test_only_a_mark_that_may_change_waits() -> None:
    parser = ChatGLMChatAdapter().output_parser()
    assert parser.feed(TextDelta(0, "好,")) == [TextDelta(0, "好，")]
    assert parser.feed(TextDelta(0, "a,")) == [TextDelta(0, "a")]
    assert parser.feed(TextDelta(0, "b")) == [TextDelta(0, ",b")]


def test_the_second_generation_keeps_its_punctuation() -> None:
    text = " 你好, [[训练时间]]!"
    assert answered(ChatGLM2ChatAdapter().output_parser(), [text]) == "你好, 2023年!"


def test_special_tokens_stand_behind_or_in_front() -> None:
    chat = [Message("user", "你好")]
    first, second = ChatGLMChatAdapter().render(chat), ChatGLM2ChatAdapter().render(chat)
    assert first.parts == (Text("你好"), Special("[gMASK]"), Special("<sop>"))
    assert second.parts[:2] == (Special("[gMASK]"), Special("sop"))
    assert (first.stop_tokens, second.stop_tokens) == (("<eop>",), ("</s>",))
    assert not first.add_bos and not second.add_bos


def test_several_systems_are_joined_as_in_db_gpt() -> None:
    chat = [Message("system", "甲。"), Message("developer", "乙。"), Message("user", "丙？")]
    assert ChatGLMChatAdapter().render(chat).parts[0] == Text("甲。乙。\n\n丙？")
    assert ChatGLMChatAdapter().render(chat[:1]).parts[0] == Text("甲。")


def test_neighbours_make_one_round() -> None:
    chat = [Message("assistant", "a"), Message("user", "b"), Message("user", "c")]
    text = "[Round 1]\n\n问：\n\n答：a\n\n[Round 2]\n\n问：b\n\nc\n\n答："
    assert ChatGLM2ChatAdapter().render(chat).parts[2] == Text(text)


def test_sampling_defaults() -> None:
    assert ChatGLMChatAdapter().sampling_defaults == {"top_p": 0.7, "temperature": 0.95}
    assert ChatGLM2ChatAdapter().sampling_defaults == {"top_p": 0.8, "temperature": 0.8}
