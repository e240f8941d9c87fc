"""langchain-openai over a real socket, on the built-in model."""

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.serving import Program


def model(parlm: Program, **options: object) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=parlm.base_url,
        api_key=SecretStr("unused"),
        model="parlm-tiny",
        max_retries=0,
        **options,
    )


def test_invoke(parlm: Program) -> None:
    answer = model(parlm).invoke([HumanMessage("What is 12 + 30?")])
    assert "42" in answer.text
    assert isinstance(answer, AIMessage)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] > 0


def test_stream_with_usage(parlm: Program) -> None:
    chunks = list(model(parlm, stream_usage=True).stream("What is 12 + 30?"))
    assert len(chunks) > 3
    assert "42" in "".join(chunk.text for chunk in chunks)
    usages = [c.usage_metadata for c in chunks if isinstance(c, AIMessage) and c.usage_metadata]
    assert sum(usage["total_tokens"] for usage in usages) > 0


def test_batch(parlm: Program) -> None:
    answers = model(parlm).batch(["What is 2 + 3?", "What is 20 + 30?"])
    assert "5" in answers[0].text
    assert "50" in answers[1].text


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city"""
    return f"It is sunny in {city}."


def test_a_bound_tool_is_called(parlm: Program) -> None:
    answer = model(parlm).bind_tools([get_weather]).invoke("What is the weather in Paris?")
    assert isinstance(answer, AIMessage)
    assert [(c["name"], c["args"]) for c in answer.tool_calls] == [
        ("get_weather", {"city": "Paris"})
    ]
