"""The openai package over a real socket, on the built-in model."""

import re

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.serving import Program

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello!"}]
SUM: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is 12 + 30?"}]
MODEL = "parlm-tiny"


def test_a_whole_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=SUM)
    assert "42" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 5
    assert answer.usage.completion_tokens > 3
    assert answer._request_id


def test_a_streamed_answer_is_the_whole_one(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=SUM)
    stream = client.chat.completions.create(model=MODEL, messages=SUM, stream=True)
    parts = [c.choices[0].delta.content or "" for c in stream]
    assert len(parts) > 3
    assert "".join(parts) == whole.choices[0].message.content


def test_the_sdks_own_accumulator(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=SUM) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert "42" in (final.choices[0].message.content or "")


def test_usage_in_a_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens


def test_stop(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=SUM).choices[0].message.content
    assert whole is not None
    stop = whole[len(whole) // 2 :][:3]
    for stream in (False, True):
        answer = client.chat.completions.create(model=MODEL, messages=SUM, stop=stop, stream=stream)
        if isinstance(answer, openai.Stream):
            text = "".join(c.choices[0].delta.content or "" for c in answer)
        else:
            text = answer.choices[0].message.content or ""
        assert text == whole[: whole.index(stop)]


def test_a_seed_repeats_and_another_differs(client: openai.OpenAI) -> None:
    def answer(seed: int) -> str | None:
        reply = client.chat.completions.create(
            model=MODEL, messages=HELLO, temperature=2, max_tokens=40, seed=seed
        )
        return reply.choices[0].message.content

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(5)}) > 1


def test_max_tokens_and_max_completion_tokens(client: openai.OpenAI) -> None:
    old = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2)
    new = client.chat.completions.create(model=MODEL, messages=HELLO, max_completion_tokens=2)
    for answer in (old, new):
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 2


def test_n(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, n=3, temperature=1.5, seed=7
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(choice.finish_reason in ("stop", "length") for choice in answer.choices)
    assert answer.usage is not None
    once = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert once.usage is not None
    assert answer.usage.prompt_tokens == once.usage.prompt_tokens


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in logprobs.content)
    spelled = b"".join(bytes(token.bytes or []) for token in logprobs.content)
    assert spelled.decode() == answer.choices[0].message.content


def test_text_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=["Hello", "The"], max_tokens=5)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(choice.text for choice in answer.choices)


def test_a_tool_is_called(client: openai.OpenAI) -> None:
    tool: ChatCompletionToolParam = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    messages: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "What is the weather in Paris?"}
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[tool])
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert call.function.arguments == '{"city": "Paris"}'
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=[tool]) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls is not None
    assert streamed.message.tool_calls[0].function.arguments == '{"city": "Paris"}'


def test_models(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {MODEL, "echo"}
    assert client.models.retrieve("gpt-3.5-turbo").id == MODEL


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=HELLO, stream=stream)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert caught.value.request_id


@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_value(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, temperature=9, stream=stream)
    assert caught.value.param == "temperature"
    assert caught.value.code == "invalid_value"


@pytest.mark.parametrize("stream", [False, True])
def test_too_long_a_prompt(client: openai.OpenAI, stream: bool) -> None:
    long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=long, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert re.match(
        r"This model's maximum context length is \d+ tokens\. However", _message(caught)
    )


def _message(caught: pytest.ExceptionInfo[openai.BadRequestError]) -> str:
    body = caught.value.body
    assert isinstance(body, dict)
    return str(body["message"])


def test_a_token_id_that_does_not_exist(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, logit_bias={"9999999": 1})
    assert caught.value.param == "logit_bias"


def test_a_wrong_key(tmp_path: object, parlm: Program) -> None:
    from pathlib import Path

    from tests.serving import program

    folder = Path(str(tmp_path))
    with (
        program(folder, LLM_MODEL="echo", API_KEYS="right") as locked,
        openai.OpenAI(base_url=locked.base_url, api_key="wrong", max_retries=0) as client,
    ):
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"
        assert client.with_options(api_key="right").models.list().data[0].id == "echo"


@pytest.mark.anyio
async def test_many_async_requests_do_not_mix(parlm: Program) -> None:
    import asyncio

    async with openai.AsyncOpenAI(base_url=parlm.base_url, api_key="x", max_retries=0) as client:

        async def add(a: int, b: int) -> str:
            answer = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": f"What is {a} + {b}?"}]
            )
            return answer.choices[0].message.content or ""

        pairs = [(a, 2 * a + 3) for a in range(10, 34)]
        answers = await asyncio.gather(*(add(a, b) for a, b in pairs))
    right = [str(a + b) in answer for (a, b), answer in zip(pairs, answers, strict=True)]
    assert sum(right) >= 22
