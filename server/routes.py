"""The URLs of the server. Each route parses, asks, and hands on; nothing is decided here."""

from __future__ import annotations

from typing import Any, Protocol

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.body import read_json
from server.chat import ChatChunks, ChatFold
from server.completions import TextChunks, TextFold
from server.embeddings import embeddings_body
from server.errors import ApiError, naming_prompt
from server.generation import chat_request, offered_tools, parse, text_requests
from server.merging import merge
from server.models import ModelTable, ServedModel
from server.protocol import (
    SCHEMA_REF,
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingsRequest,
    SamplingFields,
    Wire,
)
from server.replies import ModelBody, ModelList, encode
from server.settings import Settings
from server.streaming import Chunks, stream_response, unless_gone, whole_response

health = APIRouter(tags=["health"])
openai = APIRouter(tags=["openai"])


def _body_of(model: type[Wire]) -> dict[str, Any]:
    schema = {"$ref": SCHEMA_REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@openai.post("/chat/completions", openapi_extra=_body_of(ChatCompletionRequest))
async def chat_completions(request: Request) -> Response:
    """Continue a chat."""
    wire = ChatCompletionRequest.model_validate(await _json(request))
    model = _models(request).find(wire.model)
    model.check_generates()
    request_id = _request_id(request)
    generation = await chat_request(wire, model, request_id)
    events = parse(model.engine.generate(generation), model.adapter, offered_tools(wire))
    answer_id = f"chatcmpl-{request_id.removeprefix('req_')}"
    with naming_prompt("messages"):
        if wire.stream:
            chunks = ChatChunks(answer_id, model, include_usage=_wants_usage(wire))
            return await _stream(request, events, chunks)
        fold = ChatFold(answer_id, model, logprobs=bool(wire.logprobs))
        return await whole_response(request, events, fold)


@openai.post("/completions", openapi_extra=_body_of(CompletionRequest))
async def completions(request: Request) -> Response:
    """Continue one or several texts."""
    wire = CompletionRequest.model_validate(await _json(request))
    model = _models(request).find(wire.model)
    model.check_generates()
    request_id = _request_id(request)
    generations = text_requests(wire, model, request_id)
    events = merge([model.engine.generate(g) for g in generations], choices_each=wire.n or 1)
    answer_id = f"cmpl-{request_id.removeprefix('req_')}"
    with naming_prompt("prompt"):
        if wire.stream:
            chunks = TextChunks(answer_id, model, include_usage=_wants_usage(wire))
            return await _stream(request, events, chunks)
        fold = TextFold(answer_id, model, logprobs=wire.logprobs is not None)
        return await whole_response(request, events, fold)


@openai.post("/embeddings", openapi_extra=_body_of(EmbeddingsRequest))
async def embeddings(request: Request) -> Response:
    """Turn one or several texts into vectors."""
    wire = EmbeddingsRequest.model_validate(await _json(request))
    model = _models(request).find(wire.model)
    body = embeddings_body(wire, model, _request_id(request))
    return Response(await unless_gone(request, body), media_type="application/json")


@openai.get("/models")
async def list_models(request: Request) -> Response:
    """List the models."""
    models = [ModelBody(m.name, m.created) for m in _models(request).models.values()]
    return _reply(ModelList(models))


@openai.get("/models/{name:path}")
async def show_model(request: Request, name: str) -> Response:
    """Show one model: which engine runs it, and why that one."""
    model = _models(request).find(name)
    return _reply(ModelBody(model.name, model.created, parlm=_about(model)))


@health.get("/health/live")
async def live() -> Response:
    """Tell that the process answers."""
    return _reply({"status": "ok"})


@health.get("/health/ready")
@health.get("/health")
async def ready(request: Request) -> Response:
    """Tell whether every model would take a request now."""
    if not _models(request).is_ready():
        raise ApiError(
            503,
            "Not ready: a model is loading or being restarted.",
            type="server_error",
            code="not_ready",
            headers={"Retry-After": "1"},
        )
    return _reply({"status": "ok"})


async def _json(request: Request) -> dict[str, Any]:
    return await read_json(request, _settings(request).max_body_bytes)


async def _stream(request: Request, events: Any, chunks: Chunks) -> Response:
    settings = _settings(request)
    return await stream_response(
        request,
        events,
        chunks,
        header_hold=settings.header_hold,
        ping_seconds=settings.sse_ping_seconds,
    )


def _wants_usage(wire: SamplingFields) -> bool:
    return wire.stream_options is not None and bool(wire.stream_options.include_usage)


def _about(model: ServedModel) -> dict[str, Any]:
    health = model.engine.health()
    return {
        "engine": model.engine.name,
        "reason": model.reason,
        "adapter": type(model.adapter).__name__,
        "context_length": model.context_length,
        "ready": health.is_ready,
        "detail": health.detail.partition(":")[0],  # the rest, paths perhaps, is the operator's
        "aliases": list(model.aliases),
        "fingerprint": model.fingerprint,
    }


def _reply(body: object) -> Response:
    return Response(encode(body), media_type="application/json")


class _State(Protocol):
    models: ModelTable
    settings: Settings


def _state(request: Request) -> _State:
    state: _State = request.app.state
    return state


def _models(request: Request) -> ModelTable:
    return _state(request).models


def _settings(request: Request) -> Settings:
    return _state(request).settings


def _request_id(request: Request) -> str:
    request_id: str = request.scope["state"]["request_id"]
    return request_id
