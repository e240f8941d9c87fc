"""From wire requests to requests for an engine: nothing changes its meaning on the way."""

import asyncio
from collections.abc import Mapping
from typing import Any

from adapters.base import BaseChatAdapter
from engines.echo import EchoEngine
from engines.types import GenerationRequest, Message, MessagesPrompt, ToolCall
from server.generation import chat_request
from server.protocol import ChatCompletionRequest
from tests.serving import served


class Terse(BaseChatAdapter):
    sampling_defaults: Mapping[str, float] = {"max_tokens": 7, "seed": 3, "temperature": 0.5}


def convert(adapter: BaseChatAdapter | None = None, **fields: Any) -> GenerationRequest:
    body = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}], **fields}
    wire = ChatCompletionRequest.model_validate(body)
    return asyncio.run(chat_request(wire, served(EchoEngine(), adapter=adapter), "r"))


def test_the_calls_of_before_tools_are_tied_to_their_results() -> None:
    call = {"name": "f", "arguments": '{"a": 1}'}
    prompt = convert(
        messages=[
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "function_call": call},
            {"role": "function", "name": "f", "content": "2"},
        ]
    ).prompt
    assert isinstance(prompt, MessagesPrompt)
    _, asked, answered = prompt.messages
    assert asked == Message("assistant", tool_calls=(ToolCall("call_f", "f", '{"a": 1}'),))
    assert answered == Message("tool", "2", "f", tool_call_id="call_f")


def test_an_adapter_may_have_a_default_for_every_number() -> None:
    sampling = convert(Terse()).sampling
    assert (sampling.max_tokens, sampling.seed, sampling.temperature) == (7, 3, 0.5)


def test_a_request_beats_the_adapters_defaults() -> None:
    sampling = convert(Terse(), max_completion_tokens=9, seed=1, temperature=0).sampling
    assert (sampling.max_tokens, sampling.seed, sampling.temperature) == (9, 1, 0)
