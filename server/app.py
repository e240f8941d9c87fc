"""The ASGI application: routes inside, the checks every request passes outside."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from server import routes
from server.errors import to_api_error
from server.middleware import ApiKeyCheck, HostCheck, RequestIdentity, TrailingSlash
from server.models import ModelTable
from server.protocol import json_schemas
from server.settings import LOOPBACK_HOSTS, Settings


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Describe the API, the bodies too: FastAPI does not know them, as routes read them."""
        if self.openapi_schema is None:
            schemas = super().openapi().setdefault("components", {}).setdefault("schemas", {})
            schemas.update(json_schemas())
        return super().openapi()


def create_app(models: ModelTable, settings: Settings) -> FastAPI:
    """Build the application for models that are being, or have been, started elsewhere."""
    keys = [key.get_secret_value() for key in settings.api_keys]
    show_docs = not keys
    app = _App(
        title="parlm",
        middleware=_middleware(settings, keys),
        exception_handlers={HTTPException: _http_exception},
        docs_url="/docs" if show_docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if show_docs else None,
        redirect_slashes=False,
    )
    app.state.models = models
    app.state.settings = settings
    app.include_router(routes.health)
    app.include_router(routes.openai, prefix="/v1")
    # Clients are often given the base URL without /v1.
    app.include_router(routes.openai, include_in_schema=False)
    return app


def _middleware(settings: Settings, keys: list[str]) -> list[Middleware]:
    stack = [Middleware(RequestIdentity), Middleware(TrailingSlash)]
    if settings.host in LOOPBACK_HOSTS:
        stack.append(Middleware(HostCheck, allowed=LOOPBACK_HOSTS | {*settings.allowed_hosts}))
    stack.append(Middleware(ApiKeyCheck, keys=keys))
    return stack


async def _http_exception(_: Request, error: Exception) -> Response:
    """Give Starlette's own 404 and 405 the envelope."""
    api_error = to_api_error(error)
    return Response(
        api_error.body,
        status_code=api_error.status,
        headers=api_error.headers,
        media_type="application/json",
    )
