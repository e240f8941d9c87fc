"""The contract of an adapter: what one family of models needs to be loaded and talked to.

Two classes, as DB-GPT had them: a load adapter (`match`, `loader`) and a chat adapter (`match`,
`get_generate_stream_func`). Classes written for that API work unchanged; everything else here
has a default.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from adapters.parsing import OutputParser, PlainText
from engines.types import Message, MessagesPrompt, ModelDescription, Prompt, Tool

GenerateStream = Callable[[Any, Any, dict[str, Any], str, int], Iterator[str]]
"""`(model, tokenizer, params, device, context_len)` -> pieces of new text, without the prompt."""


def family_name(class_name: str) -> str:
    """Return a class's name without its ending: `VicunaChatAdapter` -> `vicuna`.

    The endings of the inherited classes, misspelt ones too, are known.
    """
    name = re.sub(r"(LLM|Chat)?Ada?p[a-z]*er$", "", class_name)
    return (name or class_name).lower()


class Adapter:
    """What both kinds of adapter share: how one is chosen for a model.

    `priority` decides among several that match: higher wins, equal is an error. Built-in
    adapters have -10, the default one -100, so that a user's own wins without saying so.
    `name` is what `LLM_ADAPTER` calls it by; unless a class sets it, it is `family_name`.
    """

    name: ClassVar[str] = ""
    priority: ClassVar[int] = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = family_name(cls.__name__)

    def match(self, model_path: str) -> bool:
        """Tell whether this adapter serves the model of that name or path."""
        raise NotImplementedError(f"{type(self).__name__} does not implement match()")


class BaseLLMAdapter(Adapter):
    """Knows how to load the weights of a family.

    `engine` names the engine the family prefers; None leaves it to the settings.
    """

    engine: ClassVar[str | None] = None

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load with transformers and return `(model, tokenizer)`; called with positions only."""
        raise NotImplementedError(f"{type(self).__name__} does not implement loader()")


class BaseChatAdapter(Adapter):
    """Knows how a family is spoken to: its prompt, its stops, and the form of its answers.

    `sampling_defaults` hold values for sampling parameters (by their wire names) that a request
    leaves out. A class without a `render` of its own speaks as parlm does with that model
    otherwise, once `for_model` has seen the model.
    """

    sampling_defaults: Mapping[str, float] = {}
    _usual: BaseChatAdapter | None = None

    def get_generate_stream_func(self) -> GenerateStream | None:
        """Return the function that streams text from a transformers model; None for the usual."""
        return None

    def match_files(self, model: ModelDescription) -> bool:  # noqa: ARG002
        """Tell whether a model without a chat template is of this family, by its files alone.

        Asked when its name and path told nothing; only for what no other family could be.
        """
        return False

    def for_model(self, model: ModelDescription) -> BaseChatAdapter:
        """Return the adapter to use for this very model, after a look at what its files say.

        Called once at start; it may take seconds, because a template is first tried in a child
        process. Raises `TemplateError` when the model's template does not work.
        """
        if model.format == "none" or self.has_form():
            return self
        # Not at the top: those adapters derive from this class.
        from adapters.builtin.default import usual_adapter

        return self._speaking_as(usual_adapter(model))

    def has_form(self) -> bool:
        """Tell whether this adapter itself knows how a chat is written."""
        return type(self).render is not BaseChatAdapter.render

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Prompt:
        """Turn a chat into the prompt this family was trained on.

        Called for each request, also from several threads at once. Raises `UnsupportedChat` for
        a chat the family has no form for.
        """
        if self._usual is not None:
            return self._usual.render(messages, tools)
        return MessagesPrompt(tuple(messages), tuple(tools))

    def output_parser(self, tools: Sequence[Tool] = ()) -> OutputParser:
        """Return a fresh parser that finds tool calls and reasoning in one choice's text."""
        if self._usual is not None:
            return self._usual.output_parser(tools)
        return PlainText()

    def _speaking_as(self, usual: BaseChatAdapter) -> BaseChatAdapter:
        bound = copy.copy(self)
        bound._usual = usual
        bound.sampling_defaults = {**usual.sampling_defaults, **self.sampling_defaults}
        return bound
