"""The Jinja environment in which chat templates run: what Hugging Face gives them, and no more.

Templates come with weights from the internet. The sandbox keeps them from reaching Python; it
does not bound time or memory, which is why `adapters.probe` tries each one in a child first.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

from adapters.marks import unescape_marks

_OPEN_TYPES = (
    str, int, float, list, tuple, dict, range, Undefined, LoopContext, Namespace, Cycler, Joiner,
)  # fmt: skip


class ChatRefused(jinja2.TemplateError):
    """A template called `raise_exception`; the message is the template's own."""


class ChatTemplateEnvironment(ImmutableSandboxedEnvironment):
    """Compiles chat templates as transformers does (`utils/chat_template_utils.py`), sealed.

    Attributes can be read of plain data and of Jinja's own loop helpers only, and never one
    that begins with an underscore.
    """

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, _GenerationExtension],
            cache_size=0,
        )
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.filters["tojson"] = _tojson

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Tell whether a template may read this attribute."""
        return isinstance(obj, _OPEN_TYPES) and super().is_safe_attribute(obj, attr, value)


class _GenerationExtension(Extension):
    """`{% generation %}`, by which training code finds the answers; here only its content."""

    tags = {"generation"}  # noqa: RUF012 - the base class has it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _raise_exception(message: str) -> NoReturn:
    raise ChatRefused(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as transformers' filter does: unlike Jinja's own, without HTML escapes."""
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return unescape_marks(text) if ensure_ascii else text
