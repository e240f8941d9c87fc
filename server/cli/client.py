"""A thin client of any OpenAI-compatible server: its models, and a chat answer as a stream."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx2

from server.cli.sse import EventDecoder, EventTooLarge

# A long prompt on a CPU may take minutes to its first token, and not every server sends
# keep-alive comments meanwhile. Seconds.
TIMEOUT = httpx2.Timeout(600, connect=5)

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


class ClientError(Exception):
    """What went wrong, in one line for the user."""


class NoServer(ClientError):
    """Nothing answers at the base URL."""


class BrokenStream(ClientError):
    """The stream ended before the answer did, so the answer cannot be trusted to be whole."""


class ServerError(ClientError):
    """The server's own error. `status` is None for one that came within a stream."""

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        self.status = status
        self.code = code
        self.message = " ".join(message.split())
        label = " ".join(str(part) for part in (status, code) if part)
        super().__init__(f"{label}: {self.message}" if label else self.message)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the server lists it. What a server does not tell is None or empty.

    `context_length` is in tokens; `reason` says why this engine, `detail` why it is not ready.
    """

    id: str
    owned_by: str | None = None
    engine: str | None = None
    adapter: str | None = None
    reason: str | None = None
    context_length: int | None = None
    ready: bool | None = None
    detail: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatParams:
    """Which model answers and how; None leaves the choice to the server."""

    model: str
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event of a stream adds to the first choice; `usage` is as the server sent it."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None


class Client:
    """Speaks to the server at `base_url`, which includes the version: `http://host:8000/v1`.

    Every method raises `NoServer`, `ServerError` or another `ClientError`.
    """

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        # Compressed, a stream would come in lumps.
        headers = {"Accept-Encoding": "identity", "User-Agent": "parlm"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        with self._explained():
            # A proxy from the environment cannot reach this machine's own loopback address.
            trust_env = not is_loopback(httpx2.URL(self.base_url).host)
            self._http = httpx2.Client(headers=headers, timeout=TIMEOUT, trust_env=trust_env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def models(self) -> list[ModelInfo]:
        """List the models the server offers, without what only `model` tells."""
        listed = self._get("/models").get("data")
        if not isinstance(listed, list):
            raise ServerError(f"{self.base_url}/models is not a list of models")
        return [_model_info(item) for item in listed if isinstance(item, dict) and "id" in item]

    def model(self, name: str) -> ModelInfo:
        """Return all that the server tells of one model."""
        return _model_info(self._get(f"/models/{quote(name, safe='/')}"))

    def chat(
        self, messages: Sequence[Mapping[str, str]], params: ChatParams
    ) -> Generator[Chunk, None, None]:
        """Stream an answer; closing the iterator aborts it at the server.

        It ends normally only when the answer is whole: a finish reason and `[DONE]` have come.
        Otherwise it raises `BrokenStream`.
        """
        body = {
            "model": params.model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        options = {"temperature": params.temperature, "max_tokens": params.max_tokens}
        body |= {name: value for name, value in options.items() if value is not None}
        url = f"{self.base_url}/chat/completions"
        with self._explained(), self._http.stream("POST", url, json=body) as response:
            _check(response)
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise ServerError(f"{url} answered with {kind or 'no content type'}, not a stream")
            yield from _read_chunks(response.iter_bytes())

    def _get(self, path: str) -> dict[str, Any]:
        with self._explained():
            response = self._http.get(self.base_url + path)
        _check(response)
        try:
            reply = response.json()
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise ServerError(f"{self.base_url}{path} did not answer with a JSON object")
        return reply

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the HTTP library raises into a `ClientError`."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if is_loopback(httpx2.URL(self.base_url).host):
                hint = f"no server at {self.base_url}: start one with `make serve` or `parlm serve`"
                raise NoServer(hint) from error
            reason = str(error) or "no connection"
            raise NoServer(f"no server at {self.base_url}: {reason}") from error
        except httpx2.TimeoutException as error:
            raise BrokenStream(f"no word from the server for {TIMEOUT.read:.0f} s") from error
        except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
            raise BrokenStream("the stream broke off") from error
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise ClientError(f"{self.base_url}: {error}") from error


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine by its loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check(response: httpx2.Response) -> None:
    if response.is_success:
        return
    try:
        reply = json.loads(response.read())
    except ValueError:
        reply = None
    error = reply.get("error", reply.get("detail")) if isinstance(reply, dict) else None
    raise _server_error(error, response.status_code, response.reason_phrase)


def _server_error(error: object, status: int | None = None, reason: str = "") -> ServerError:
    """Read the `error` of an envelope: OpenAI's object, or just a text as some servers send."""
    if isinstance(error, dict):
        message, code = error.get("message"), error.get("code") or error.get("type")
        return ServerError(
            str(message or reason or "an error without a message"),
            status=status,
            code=None if code is None or code == status else str(code),
        )
    return ServerError(str(error or reason or "an error without a message"), status=status)


def _read_chunks(blocks: Iterable[bytes]) -> Iterator[Chunk]:
    decoder = EventDecoder()
    is_finished = False
    for block in blocks:
        try:
            events = decoder.feed(block)
        except EventTooLarge as error:
            raise BrokenStream(str(error)) from error
        for data in events:
            if data.startswith("[DONE]"):
                if not is_finished:
                    raise BrokenStream("the stream broke off")
                return
            chunk = _parse_chunk(data)
            is_finished = is_finished or chunk.finish_reason is not None
            yield chunk
    raise BrokenStream("the stream broke off")


def _parse_chunk(data: str) -> Chunk:
    try:
        event = json.loads(data)
    except ValueError as error:
        raise BrokenStream("the server sent an event that is not JSON") from error
    if not isinstance(event, dict):
        raise BrokenStream("the server sent an event that is not an object")
    if event.get("error"):
        raise _server_error(event["error"])
    choices = [c for c in event.get("choices") or () if isinstance(c, dict) and not c.get("index")]
    choice = choices[0] if choices else {}
    delta = choice.get("delta")
    delta = delta if isinstance(delta, dict) else {}
    return Chunk(
        text=_text(delta.get("content")),
        reasoning=_text(delta.get("reasoning_content") or delta.get("reasoning")),
        finish_reason=choice.get("finish_reason"),
        usage=event.get("usage"),
    )


def _text(value: object) -> str:
    """Return text that can be printed and sent back: lone surrogates cannot be encoded."""
    return _LONE_SURROGATES.sub("\ufffd", value) if isinstance(value, str) else ""


def _model_info(item: Mapping[str, Any]) -> ModelInfo:
    extra = item.get("parlm")
    known = extra if isinstance(extra, dict) else {}
    names = ("engine", "adapter", "reason", "context_length", "ready", "detail")
    aliases = known.get("aliases")
    return ModelInfo(
        id=str(item.get("id", "")),
        owned_by=item.get("owned_by"),
        aliases=tuple(map(str, aliases)) if isinstance(aliases, list) else (),
        **{name: known.get(name) for name in names},
    )
