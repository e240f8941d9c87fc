"""Embeddings of the built-in model with the openai and langchain-openai packages."""

import math
from typing import Any

import httpx2
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from tests.serving import Program, post

MODEL = "parlm-tiny"
TEXTS = ["What is 12 + 30?", "Hello!", "日本語"]


def is_close(one: list[float], other: list[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=2e-3) for a, b in zip(one, other, strict=True))


def test_the_sdks_default_is_base64(client: openai.OpenAI) -> None:
    reply = client.embeddings.create(model=MODEL, input=TEXTS)
    assert [item.index for item in reply.data] == [0, 1, 2]
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 3
    for item, text in zip(reply.data, TEXTS, strict=True):
        floats = client.embeddings.create(model=MODEL, input=text, encoding_format="float")
        assert len(item.embedding) == 256
        assert math.hypot(*item.embedding) == pytest.approx(1, abs=1e-5)
        assert is_close(item.embedding, floats.data[0].embedding)


def test_a_model_that_makes_none(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="makes no embeddings") as caught:
        client.embeddings.create(model="echo", input="a")
    assert caught.value.code == "unsupported_operation"


def embeddings(parlm: Program) -> OpenAIEmbeddings:
    # By the documented names, which are aliases that mypy does not know.
    options: dict[str, Any] = {"base_url": parlm.base_url, "api_key": SecretStr("unused")}
    return OpenAIEmbeddings(model=MODEL, max_retries=0, check_embedding_ctx_length=False, **options)


def test_langchain_sends_text_when_told_not_to_count_tokens(
    parlm: Program, client: openai.OpenAI
) -> None:
    vectors = embeddings(parlm).embed_documents(TEXTS)
    query = embeddings(parlm).embed_query(TEXTS[0])
    assert is_close(vectors[0], query)
    reply = client.embeddings.create(model=MODEL, input=TEXTS)
    for vector, item in zip(vectors, reply.data, strict=True):
        assert is_close(vector, item.embedding)


def test_ids_of_another_vocabulary_are_refused(parlm: Program) -> None:
    # What LangChain sends by default: the ids of OpenAI's tokenizer, here of "Hello world".
    body = {"model": MODEL, "input": [[9906, 1917]]}
    reply: httpx2.Response = post(f"{parlm.base_url}/embeddings", body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "input[0]"
    assert "send text" in reply.json()["error"]["message"]
