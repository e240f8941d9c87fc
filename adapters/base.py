"""The contract of an adapter: what one family of models needs to be loaded and talked to.

Two classes, as DB-GPT had them: a load adapter (`match`, `loader`) and a chat adapter (`match`,
`get_generate_stream_func`). Classes written for that API work unchanged; everything else here
has a default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from adapters.parsing import OutputParser, PlainText
from engines.types import Message, MessagesPrompt, ModelDescription, Prompt, Tool

GenerateStream = Callable[[Any, Any, dict[str, Any], str, int], Iterator[str]]
"""`(model, tokenizer, params, device, context_len)` -> pieces of new text, without the prompt."""


class BaseLLMAdapter:
    """Knows how to load the weights of a family.

    `priority` decides among several that match: higher wins, equal is an error. Built-in
    adapters have -10, the default one -100, so that a user's own wins without saying so.
    `engine` names the engine the family prefers; None leaves it to the settings.
    """

    priority: ClassVar[int] = 0
    engine: ClassVar[str | None] = None

    def match(self, model_path: str) -> bool:
        """Tell whether this adapter serves the model of that name or path."""
        raise NotImplementedError(f"{type(self).__name__} does not implement match()")

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load with transformers and return `(model, tokenizer)`; called with positions only."""
        raise NotImplementedError(f"{type(self).__name__} does not implement loader()")


class BaseChatAdapter:
    """Knows how a family is spoken to: its prompt, its stops, and the form of its answers.

    `priority` as in `BaseLLMAdapter`. `sampling_defaults` hold values for sampling parameters
    (by their wire names) that a request leaves out.
    """

    priority: ClassVar[int] = 0
    sampling_defaults: Mapping[str, float] = {}

    def match(self, model_path: str) -> bool:
        """Tell whether this adapter serves the model of that name or path."""
        raise NotImplementedError(f"{type(self).__name__} does not implement match()")

    def get_generate_stream_func(self) -> GenerateStream | None:
        """Return the function that streams text from a transformers model; None for the usual."""
        return None

    def for_model(self, model: ModelDescription) -> BaseChatAdapter:  # noqa: ARG002
        """Return the adapter to use for this very model, after a look at what its files say.

        Called once at start. Raises `TemplateError` when the model's template does not work.
        """
        return self

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Prompt:
        """Turn a chat into the prompt this family was trained on.

        Raises `UnsupportedChat` for a chat the family has no form for.
        """
        return MessagesPrompt(tuple(messages), tuple(tools))

    def output_parser(self, tools: Sequence[Tool] = ()) -> OutputParser:  # noqa: ARG002
        """Return a fresh parser that finds tool calls and reasoning in one choice's text."""
        return PlainText()
