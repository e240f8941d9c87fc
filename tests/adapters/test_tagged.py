from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.parsing import Chain, OutputParser, ParsedEvent, PlainText
from adapters.tagged import TaggedReasoning, TaggedToolCalls
from engines.types import (
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "é"}}\n</tool_call>'
THINK = ("<think>", "</think>", "<thi", "nk>")
TOOLS = ("<tool_call>", "</tool_call>", "<tool_", '{"name": "f"}', CALL)


def run(
    parser: OutputParser, pieces: list[str], reason: FinishReason = "stop"
) -> list[ParsedEvent]:
    events = [event for piece in pieces for event in parser.feed(TextDelta(0, piece))]
    return events + parser.finish(0, reason)


def folded(events: list[ParsedEvent]) -> tuple[str, str, list[tuple[int, str, str]], str]:
    """The text, the reasoning, the calls and the finish reason."""
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    calls = [
        (d.call, d.name, "".join(e.arguments for e in deltas if e.call == d.call))
        for d in deltas
        if d.name
    ]
    assert isinstance(events[-1], Finish)
    assert sum(isinstance(event, Finish) for event in events) == 1
    return text, thought, calls, events[-1].reason


def cut(text: str, at: list[int]) -> list[str]:
    places = sorted({0, len(text), *(place % (len(text) + 1) for place in at)})
    return [text[a:b] for a, b in pairwise(places)]


def texts(*tags: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from([*tags, " ", "\n", "<", "x", '"'])).map("".join)


@given(texts(*THINK, *TOOLS), st.lists(st.integers(0, 500)), st.booleans())
def test_the_pieces_do_not_matter(text: str, at: list[int], is_open: bool) -> None:
    def parser() -> Chain:
        return Chain(TaggedReasoning(is_open=is_open), TaggedToolCalls())

    assert folded(run(parser(), cut(text, at))) == folded(run(parser(), [text]))


@given(texts(*THINK, "<tool_call>", "</tool_call>"))
def test_text_without_structure_is_not_lost(text: str) -> None:
    assert folded(run(TaggedToolCalls(), [text]))[0] == text


@given(texts(*THINK), st.booleans())
def test_reasoning_loses_only_tags_and_whitespace(text: str, is_open: bool) -> None:
    answer, thought, _, _ = folded(run(TaggedReasoning(is_open=is_open), [text]))
    kept = re.sub(r"\s", "", thought + answer)
    written = re.sub(r"\s", "", text)
    assert kept in (
        written,
        written.removeprefix("<think>"),
        written.removeprefix("<think>").replace("</think>", "", 1),
        written.replace("</think>", "", 1),
    )


@pytest.mark.parametrize(
    ("text", "answer", "calls"),
    [
        (CALL, "", [(0, "f", '{"a": "é"}')]),
        (f"Let me see. \n{CALL}\n", "Let me see.", [(0, "f", '{"a": "é"}')]),
        (f"{CALL}\n\n{CALL}", "", [(0, "f", '{"a": "é"}'), (1, "f", '{"a": "é"}')]),
        (f"{CALL} Done. ", "Done. ", [(0, "f", '{"a": "é"}')]),
        (CALL.removesuffix("\n</tool_call>"), "", [(0, "f", '{"a": "é"}')]),
        ('<tool_call>{"name": "f"}</tool_call>', "", [(0, "f", "{}")]),
        ('<tool_call>{"name": "f", "parameters": {"b": 1}}', "", [(0, "f", '{"b": 1}')]),
        ('<tool_call>{"name": "f", "arguments": "{\\"b\\": 1}"}', "", [(0, "f", '{"b": 1}')]),
    ],
)
def test_calls(text: str, answer: str, calls: list[tuple[int, str, str]]) -> None:
    assert folded(run(TaggedToolCalls(), list(text))) == (answer, "", calls, "tool_calls")


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "f", "arguments": {',
        "not json",
        "[]",
        '{"name": ""}',
        '{"name": 1}',
        '{"arguments": {}}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": "x"}',
        '{"name": "f", "arguments": {"a": NaN}}',
        '{"name": "f", "arguments": {"a": "\\ud800"}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_call_stays_text(body: str) -> None:
    text = f"a <tool_call>{body}</tool_call> b"
    assert folded(run(TaggedToolCalls(), [text])) == (text, "", [], "stop")


def test_a_call_comes_name_first_with_an_id_of_its_own() -> None:
    events = run(TaggedToolCalls(), [CALL + CALL])
    first, arguments, second = events[0], events[1], events[2]
    assert isinstance(first, ToolCallDelta) and isinstance(second, ToolCallDelta)
    assert re.fullmatch("call_[0-9a-f]{24}", first.id or "")
    assert first.id != second.id
    assert arguments == ToolCallDelta(0, 0, '{"a": "é"}')


def test_an_answer_cut_short_ends_with_length() -> None:
    assert folded(run(TaggedToolCalls(), [CALL], "length"))[3] == "length"


def test_text_is_passed_on_at_once() -> None:
    parser = TaggedToolCalls()
    assert parser.feed(TextDelta(2, "Hello wor")) == [TextDelta(2, "Hello wor")]
    assert parser.feed(TextDelta(2, "ld <tool")) == [TextDelta(2, "ld")]
    assert parser.feed(TextDelta(2, "s>")) == [TextDelta(2, " <tools>")]


@pytest.mark.parametrize(
    ("text", "is_open", "thought", "answer"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", False, "Hm.", "Yes."),
        (" \n<think>Hm. So?</think>Yes. ", False, "Hm. So?", "Yes. "),
        ("Hm.\n</think>\n\nYes.", True, "Hm.", "Yes."),
        ("<think>Hm.</think>Yes.", True, "Hm.", "Yes."),
        ("Yes: <think>no</think>.", False, "", "Yes: <think>no</think>."),
        ("<think></think>Yes", False, "", "Yes"),
        ("<think>Hm. </thi", False, "Hm. </thi", ""),
        ("Hm", True, "Hm", ""),
        (" <thin", False, "", " <thin"),
        ("<th", True, "<th", ""),
        ("  ", False, "", "  "),
    ],
)
def test_reasoning(text: str, is_open: bool, thought: str, answer: str) -> None:
    result = folded(run(TaggedReasoning(is_open=is_open), list(text)))
    assert result == (answer, thought, [], "stop")


def test_a_chain_finds_calls_after_reasoning_only() -> None:
    text = f"<think>I could {CALL}</think>{CALL}"
    answer, thought, calls, reason = folded(
        run(Chain(TaggedReasoning(), TaggedToolCalls()), list(text))
    )
    assert (answer, thought, reason) == ("", f"I could {CALL}", "tool_calls")
    assert len(calls) == 1


def logprob(token: str) -> TokenLogprob:
    return TokenLogprob(token, -0.5, token.encode())


def with_logprobs(parser: OutputParser, pieces: list[str]) -> list[tuple[str, str]]:
    """The text of each event, and the tokens of its logprobs."""
    fed = [parser.feed(TextDelta(0, piece, (logprob(piece),))) for piece in pieces]
    events = [event for some in fed for event in some] + parser.finish(0, "stop")
    return [
        (event.text, "|".join(one.token for one in event.logprobs))
        for event in events
        if isinstance(event, TextDelta)
    ]


def test_logprobs_stay_with_their_text() -> None:
    pieces = ["Yes", " ", "<", "b", "", ">", *CALL, "No"]
    assert with_logprobs(TaggedToolCalls(), pieces) == [
        ("Yes", "Yes"), (" <b", " |<|b"), ("", ""), (">", ">"), ("No", "No"),
    ]  # fmt: skip


def test_logprobs_of_released_text_are_not_lost() -> None:
    pieces = ["<tool_call>", "x", "</tool_call>"]
    assert with_logprobs(TaggedToolCalls(), pieces) == [("".join(pieces), "|".join(pieces))]


def test_logprobs_of_reasoning_are_dropped() -> None:
    pieces = ["<think>", "Hm", "", "</think>", "Yes"]
    assert with_logprobs(TaggedReasoning(), pieces) == [("Yes", "Yes")]


def test_plain_text_is_untouched() -> None:
    delta = TextDelta(1, " <think>", (logprob("a"),))
    assert PlainText().feed(delta) == [delta]
    assert PlainText().finish(1, "length") == [Finish(1, "length")]


ADVERSARIAL = [
    "<tool_call",
    " ",
    "<tool_call>{",
    CALL,
    "</tool_call>",
    "<tool_call></tool_call>",
    "<think> <",
]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("unit", ADVERSARIAL)
@pytest.mark.parametrize(
    "size", [50_000, pytest.param(2**20, marks=pytest.mark.slow)], ids=["50k", "1M"]
)
def test_adversarial_text_in_single_characters(unit: str, size: int) -> None:
    # Quadratic work on a megabyte would run into the time limit of the suite.
    text = unit * (size // len(unit))
    events = run(Chain(TaggedReasoning(), TaggedToolCalls()), list(text))
    kept = sum(len(e.text) for e in events if isinstance(e, TextDelta | ReasoningDelta))
    calls = sum(isinstance(e, ToolCallDelta) and e.name is not None for e in events)
    if unit == CALL:
        assert (kept, calls) == (0, size // len(CALL))
    else:
        assert (kept, calls) == (len(text) - (8 if unit.startswith("<think>") else 0), 0)
