"""Prompts of the common forms, for adapters that write a family's template in Python."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from adapters.errors import UnsupportedChat
from engines.types import Message, PartsPrompt, Special, Text, Tool

IM_START = Special("<|im_start|>")
IM_END = Special("<|im_end|>")


def is_system(message: Message) -> bool:
    """Tell whether a message instructs the model: `developer` is OpenAI's newer `system`."""
    return message.role in ("system", "developer")


def split_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Return the text of all system messages, joined by blank lines, and the other messages."""
    system = "\n\n".join(m.content for m in messages if is_system(m))
    return system, [m for m in messages if not is_system(m)]


def refuse_tools(messages: Iterable[Message], tools: Sequence[Tool]) -> None:
    """Raise `UnsupportedChat` if a chat has tools: for families that have no form for them."""
    if tools:
        raise UnsupportedChat("this model has no form for tools", "tools")
    if any(m.role == "tool" or m.tool_calls for m in messages):
        raise UnsupportedChat("this model has no form for tool calls and their results")


def turns(
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    *,
    user: str,
    assistant: str,
    system: str = "",
    label: str = ": ",
    end: str = "\n",
    answer_end: str | Special | None = None,
    stop: tuple[str, ...] = (),
) -> PartsPrompt:
    """Write a chat as labelled turns: `system⏎User: question⏎Assistant: answer⏎User: …`.

    `user` and `assistant` are the names before `label`; the prompt ends with the assistant's,
    without the label's trailing blank, which most tokenizers want in front of the next word.
    `end` follows the system text and each turn; `answer_end`, if given, each answer instead;
    a `Special` is also what the model stops at. `system` is the family's own text, for a chat
    that brings none. What a message says is kept from looking like a turn; see `break_marks`.
    Raises `UnsupportedChat` for tools: such families have no form for them.
    """
    refuse_tools(messages, tools)
    given, rest = split_system(messages)
    names = {"assistant": assistant + label, "user": user + label}
    marks = label_marks(*names.values())
    after_answer = end if answer_end is None else answer_end
    parts: list[Text | Special] = []
    if given or system:
        parts.append(Text((break_marks(given, marks) or system) + end))
    for message in rest:
        name = names[message.role]
        content = break_marks(message.content, marks)
        parts.append(Text(name + content if content else name.rstrip(" ")))
        mark = after_answer if message.role == "assistant" else end
        parts.append(mark if isinstance(mark, Special) else Text(mark))
    parts.append(Text(names["assistant"].rstrip(" ")))
    stop_tokens = (answer_end.token,) if isinstance(answer_end, Special) else ()
    return PartsPrompt(join_texts(parts), stop=stop, stop_tokens=stop_tokens)


def label_marks(*labels: str) -> re.Pattern[str]:
    """Return what finds labels such as `USER:` in a text, though not in `SUPERUSER:`."""
    bare = (label.rstrip(" ") for label in labels)
    return re.compile("|".join(rf"{_word_start(label)}{re.escape(label)}" for label in bare))


def _word_start(label: str) -> str:
    return r"\b" if label[:1].isalnum() else ""


def break_marks(text: str, marks: re.Pattern[str]) -> str:
    """Put a blank into each mark in a text: `### Human:` -> `### Human :`.

    For families whose turns are told apart by text alone: what a message quotes must not be
    read as a turn of the chat. Their authors left that open; the text stays readable, and a
    text without marks stays as it is.
    """
    return marks.sub(lambda found: f"{found[0][:-1]} {found[0][-1]}", text)


def flat(messages: Sequence[Message]) -> str:
    """Write a chat for a model that knows none: the texts one below the other, without roles.

    The system's comes first, with a blank line behind it.
    """
    system, rest = split_system(messages)
    spoken = "\n".join(message.content for message in rest)
    return "\n\n".join(text for text in (system, spoken) if text)


def rounds(messages: Iterable[Message]) -> list[tuple[str, str | None]]:
    """Return questions and answers in pairs, the last without an answer: None.

    For families that know nothing else. Neighbours of one role are joined by a blank line; an
    answer nobody asked for gets an empty question, and so does an answer at the end.
    """
    pairs: list[tuple[str, str | None]] = []
    asked: list[str] = []
    answered: list[str] = []
    for message in messages:
        if message.role == "assistant":
            answered.append(message.content)
            continue
        if answered:
            pairs.append(("\n\n".join(asked), "\n\n".join(answered)))
            asked, answered = [], []
        asked.append(message.content)
    if answered:
        pairs.append(("\n\n".join(asked), "\n\n".join(answered)))
        asked = []
    return [*pairs, ("\n\n".join(asked), None)]


def chatml(messages: Sequence[Message], *, add_bos: bool = True) -> PartsPrompt:
    """Write a chat as ChatML: `<|im_start|>user⏎question<|im_end|>⏎<|im_start|>assistant⏎`.

    The form of OpenAI's chat markup, with the two tokens as special tokens. `add_bos` as in
    `PartsPrompt`. ChatML itself has no form for tools and calls: write them as text before.
    """
    parts: list[Text | Special] = []
    for message in messages:
        role = "system" if is_system(message) else message.role
        parts += [IM_START, Text(f"{role}\n{message.content}"), IM_END, Text("\n")]
    parts += [IM_START, Text("assistant\n")]
    return PartsPrompt(tuple(parts), add_bos, stop_tokens=(IM_END.token,))


def join_texts(parts: Iterable[Text | Special]) -> tuple[Text | Special, ...]:
    """Join neighbouring texts and leave empty ones out."""
    joined: list[Text | Special] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, Text) and isinstance(last, Text):
            joined[-1] = Text(last.text + part.text)
        elif part != Text(""):
            joined.append(part)
    return tuple(joined)
