"""POST /v1/embeddings over a real socket, on llama.cpp with models of random weights."""

from __future__ import annotations

import base64
import math
import struct
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest

from adapters.base import BaseChatAdapter
from adapters.errors import UnsupportedChat
from engines.echo import EchoEngine
from engines.registry import create_engine
from engines.types import Message, Prompt, Tool
from tests.engines.tiny_bert import make_bert, write_bert_gguf
from tests.engines.tiny_gguf import write_tiny_gguf
from tests.serving import app_server, post, served

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("llama_cpp", "gguf", "transformers"))),
    reason="llama-cpp-python, gguf or transformers is not installed",
)

WIDTH = 64


class Untemplated(BaseChatAdapter):
    """Refuses every chat, as for a model without a template: not what is wrong with an encoder."""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Prompt:
        raise UnsupportedChat("no template")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models")
    llama = str(write_tiny_gguf(folder / "tiny.gguf"))
    bert = str(write_bert_gguf(make_bert(), folder / "bert.gguf"))
    models = [
        served(create_engine("llama_cpp", model_path=llama, n_threads=1), "llama"),
        served(create_engine("llama_cpp", model_path=bert, n_threads=1), "bert", Untemplated()),
        served(EchoEngine(), "echo"),
    ]
    with app_server(models) as root:
        yield f"{root}/v1"


def embed(url: str, given: Any, model: str = "llama", **fields: Any) -> httpx2.Response:
    return post(f"{url}/embeddings", {"model": model, "input": given, **fields})


def vectors(response: httpx2.Response) -> list[list[float]]:
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return [item["embedding"] for item in data]


def error(response: httpx2.Response) -> tuple[int, str | None, str]:
    body = response.json()["error"]
    return response.status_code, body["param"], body["code"]


def is_close(one: list[float], other: list[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=2e-3) for a, b in zip(one, other, strict=True))


def test_the_shape_of_a_reply(url: str) -> None:
    body = embed(url, "hello world").json()
    assert body.keys() == {"object", "data", "model", "usage"}
    assert (body["object"], body["model"]) == ("list", "llama")
    assert body["usage"].keys() == {"prompt_tokens", "total_tokens"}
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 1
    (item,) = body["data"]
    assert item.keys() == {"object", "index", "embedding"}
    assert item["object"] == "embedding"
    assert len(item["embedding"]) == WIDTH
    assert math.hypot(*item["embedding"]) == pytest.approx(1, abs=1e-5)


def test_the_four_forms_of_input(url: str) -> None:
    (hello,) = vectors(embed(url, "hello"))
    two = vectors(embed(url, ["hello", "a story"]))
    assert is_close(two[0], hello)
    assert not is_close(two[1], hello)
    (ids,) = vectors(embed(url, [300, 301, 302]))
    lists = vectors(embed(url, [[300, 301, 302], [303]]))
    assert is_close(lists[0], ids)
    assert not is_close(lists[1], ids)


def test_base64_holds_the_same_numbers(url: str) -> None:
    (floats,) = vectors(embed(url, "hello", encoding_format="float"))
    text = embed(url, "hello", encoding_format="base64").json()["data"][0]["embedding"]
    assert list(struct.unpack(f"<{WIDTH}f", base64.b64decode(text))) == floats


def test_many_inputs_keep_their_order(url: str) -> None:
    texts = [f"number {i}" for i in range(600)]
    response = embed(url, texts)
    for i in (0, 299, 599):
        assert is_close(vectors(response)[i], vectors(embed(url, texts[i]))[0])


def test_an_encoder(url: str) -> None:
    assert len(vectors(embed(url, ["hello world", "the fox"], "bert"))[1]) == 32


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("", "input"),
        ([], "input"),
        (["a", ""], "input[1]"),
        ([[]], "input[0]"),
        ([1, "a"], "input[1]"),
        (None, "input"),
        ({"a": 1}, "input"),
        (["a"] * 2049, "input"),
        ([-1], "input[0]"),
        ([100_000], "input"),
        (["a", "b" * 100_000], "input[1]"),
        ([[300], [300] * 600], "input[1]"),
    ],
)
def test_a_wrong_input_is_named(url: str, given: object, param: str) -> None:
    status, named, code = error(embed(url, given))
    assert (status, named) == (400, param)
    assert code in ("invalid_value", "invalid_type", "context_length_exceeded")


def test_a_missing_input(url: str) -> None:
    response = post(f"{url}/embeddings", {"model": "llama"})
    assert error(response) == (400, "input", "missing_required_parameter")


def test_an_input_that_is_too_long_says_how_long_it_may_be(url: str) -> None:
    response = embed(url, [300] * 600)
    assert error(response) == (400, "input", "context_length_exceeded")
    assert "maximum context length is 512 tokens" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"dimensions": 8}, (400, "dimensions", "unsupported_parameter")),
        ({"dimensions": 0}, (400, "dimensions", "invalid_value")),
        ({"encoding_format": "hex"}, (400, "encoding_format", "invalid_value")),
        ({"input_type": "query"}, (400, "input_type", "unsupported_parameter")),
        ({"model": "none"}, (404, "model", "model_not_found")),
        ({"model": "echo"}, (400, "model", "unsupported_operation")),
    ],
)
def test_what_is_refused(url: str, fields: dict[str, Any], expected: tuple[int, str, str]) -> None:
    assert error(post(f"{url}/embeddings", {"model": "llama", "input": "a"} | fields)) == expected


def test_fields_that_change_nothing_are_taken(url: str) -> None:
    assert len(vectors(embed(url, "a", dimensions=WIDTH, user="u", input_type=None))) == 1


@pytest.mark.parametrize("route", ["chat/completions", "completions"])
def test_an_encoder_answers_no_chat(url: str, route: str) -> None:
    fields = {"messages": [{"role": "user", "content": "hello"}], "prompt": "hello"}
    fields.pop("prompt" if route == "chat/completions" else "messages")
    for stream in (False, True):
        response = post(f"{url}/{route}", {"model": "bert", "stream": stream} | fields)
        assert error(response) == (400, "model", "unsupported_operation")


def test_answers_and_embeddings_at_the_same_time(url: str) -> None:
    body = {"model": "llama", "prompt": "the quick", "max_tokens": 60, "temperature": 0}
    alone = post(f"{url}/completions", body).json()["choices"][0]["text"]
    replies: list[httpx2.Response] = []

    def run() -> None:
        replies.append(embed(url, [f"the fox number {i} " * 10 for i in range(100)]))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert post(f"{url}/completions", body).json()["choices"][0]["text"] == alone
    for thread in threads:
        thread.join()
    assert [len(vectors(reply)) for reply in replies] == [100, 100]


def test_a_client_that_leaves_ends_its_request(url: str, tmp_path: Path) -> None:
    texts = [f"text {i} " * 40 for i in range(2000)]
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{url}/embeddings",
            json={"model": "llama", "input": texts},
            timeout=httpx2.Timeout(20, read=0.3),
            trust_env=False,
        )
    assert len(vectors(embed(url, "still here"))) == 1
