"""The adapters of models that no family's adapter knows: what their own files say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adapters.base import BaseChatAdapter, BaseLLMAdapter
from adapters.errors import UnsupportedChat
from adapters.loading import is_encoder_decoder, load_pretrained
from adapters.parsing import Chain, OutputParser, PlainText
from adapters.probe import Abilities, probe
from adapters.prompts import IM_END, IM_START, chatml, refuse_tools, split_system
from adapters.registry import DEFAULT_PRIORITY, chat_adapters, llm_adapters
from adapters.tagged import TaggedReasoning, TaggedToolCalls
from adapters.templates import ChatTemplate, TemplateSource
from engines.types import Message, ModelDescription, PartsPrompt, Prompt, Tool


@llm_adapters.register
class DefaultLLMAdapter(BaseLLMAdapter):
    """Loads what transformers' auto classes know, from safetensors, running no code of a model."""

    priority = DEFAULT_PRIORITY

    def match(self, model_path: str) -> bool:  # noqa: ARG002
        """Match everything."""
        return True

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load a language model, decoder-only or encoder-decoder, and its tokenizer.

        A pickle checkpoint is refused, and so is a model with code of its own unless the
        operator allows it (`trust_remote_code` in the arguments).
        """
        is_seq2seq = is_encoder_decoder(model_path)
        model_class = "AutoModelForSeq2SeqLM" if is_seq2seq else "AutoModelForCausalLM"
        return load_pretrained(model_path, from_pretrained_kwargs, model_class=model_class)


@chat_adapters.register
class DefaultChatAdapter(BaseChatAdapter):
    """Speaks with any model as its own chat template says; what has no files gets messages."""

    priority = DEFAULT_PRIORITY

    def match(self, model_path: str) -> bool:  # noqa: ARG002
        """Match everything."""
        return True

    def for_model(self, model: ModelDescription) -> BaseChatAdapter:
        """Return the adapter that speaks as the model's files say. Raises `TemplateError`."""
        return self if model.format == "none" else self._speaking_as(template_adapter(model))


def usual_adapter(model: ModelDescription) -> BaseChatAdapter:
    """Return the adapter a model has when nobody brings one. Raises `TemplateError`."""
    found = chat_adapters.resolve(model.name, model.path, builtin_only=True)
    return found.for_model(model)


def template_adapter(model: ModelDescription) -> BaseChatAdapter:
    """Return the adapter that renders as a model's own files say.

    That is by its chat template, else as a family that its files give away, else as ChatML if
    it has the tokens for it, else not at all. Blocks while the template is tried in a child
    process. Raises `TemplateError`.
    """
    if model.chat_template:
        return TemplateChatAdapter(model)
    for adapter in chat_adapters.adapters:
        if adapter.has_form() and adapter.match_files(model):
            return adapter.for_model(model)
    if {IM_START.token, IM_END.token} <= set(model.special_tokens):
        return ChatMLChatAdapter()
    return NoTemplateChatAdapter()


class TemplateChatAdapter(BaseChatAdapter):
    """Speaks by a Jinja chat template, and finds what the template's own tags mark in answers.

    Chats are first fitted to what the template can express; see `fit`.
    """

    def __init__(self, model: ModelDescription) -> None:
        source = TemplateSource(
            model.chat_template or "",
            model.special_tokens,
            model.bos_token,
            model.eos_token,
            model.context_length,
        )
        self.abilities = probe(model.name, source)
        self._template = ChatTemplate(source, (model.eos_token, self.abilities.turn_end))

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Prompt:
        """Render the template. Raises `UnsupportedChat`."""
        if tools and not self.abilities.tools:
            raise UnsupportedChat("this model's chat template has no form for tools", "tools")
        has_results = any(m.role == "tool" for m in messages)
        if has_results and not self.abilities.tool_results:
            raise UnsupportedChat("this model's chat template has no form for results of tools")
        return self._template.render(
            fit(messages, self.abilities), tools, content_parts=self.abilities.content_parts
        )

    def output_parser(self, tools: Sequence[Tool] = ()) -> OutputParser:
        """Find `<think>` and, if there are tools, `<tool_call>`, where the template has them."""
        text = self._template.source.text
        parsers: list[OutputParser] = []
        if "</think>" in text or self.abilities.opens_reasoning:
            parsers.append(TaggedReasoning(is_open=self.abilities.opens_reasoning))
        if tools and "<tool_call>" in text:
            parsers.append(TaggedToolCalls())
        return Chain(*parsers) if parsers else PlainText()


class ChatMLChatAdapter(BaseChatAdapter):
    """Speaks ChatML, for a model that has its tokens and no template."""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write ChatML. Raises `UnsupportedChat` for tools."""
        refuse_tools(messages, tools)
        return chatml(messages)


class NoTemplateChatAdapter(BaseChatAdapter):
    """Refuses to guess how a model without a template is spoken to."""

    def render(
        self,
        messages: Sequence[Message],  # noqa: ARG002
        tools: Sequence[Tool] = (),  # noqa: ARG002
    ) -> Prompt:
        """Raise `UnsupportedChat`."""
        raise UnsupportedChat(
            "this model has no chat template; use /v1/completions or name an adapter with "
            "LLM_ADAPTER"
        )


def fit(messages: Sequence[Message], abilities: Abilities) -> list[Message]:
    """Change a chat as little as a template needs.

    A template without system messages gets their text in front of the first user message; one
    that takes only a first one gets them joined there; one that insists on alternating roles
    gets neighbours of one role joined. Blank lines separate what is joined. Ids of calls are
    shortened for a template that takes only short ones.
    """
    fitted = [m if abilities.long_call_ids else _with_short_ids(m) for m in messages]
    if not abilities.late_system or not abilities.system:
        text, fitted = split_system(fitted)
        if text and abilities.system:
            fitted.insert(0, Message("system", text))
        elif text:
            fitted = _in_first_user_message(text, fitted)
    return fitted if abilities.repeated_roles else _join_neighbours(fitted)


def _with_short_ids(message: Message) -> Message:
    calls = tuple(replace(call, id=_short_id(call.id)) for call in message.tool_calls)
    answered = message.tool_call_id and _short_id(message.tool_call_id)
    return replace(message, tool_calls=calls, tool_call_id=answered)


def _short_id(call_id: str) -> str:
    """Nine letters and digits, always the same for an id."""
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _in_first_user_message(text: str, messages: list[Message]) -> list[Message]:
    for number, message in enumerate(messages):
        if message.role == "user":
            folded = replace(message, content=f"{text}\n\n{message.content}")
            return [*messages[:number], folded, *messages[number + 1 :]]
    return [Message("user", text), *messages]


def _join_neighbours(messages: Sequence[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        is_plain = message.role in ("user", "assistant") and not message.tool_calls
        if last and is_plain and last.role == message.role and not last.tool_calls:
            joined[-1] = replace(last, content=f"{last.content}\n\n{message.content}")
        else:
            joined.append(message)
    return joined
