from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2.debug  # noqa: F401 - Jinja imports it at the first error, which the audit would see
import pytest

from adapters.errors import UnsupportedChat
from adapters.sandbox import ChatTemplateEnvironment
from adapters.templates import ChatTemplate, TemplateSource
from engines.types import Message
from tests.adapters.payloads import ESCAPES

FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "open", "import")
SECRETS = ("<class", "<module", "<function", "<built-in", "root:", "gi_", "environment", "uid=")

_seen: list[str] | None = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _seen is not None and event.startswith(FORBIDDEN):
        _seen.append(f"{event} {args[:2]!r}")


sys.addaudithook(_audit)  # cannot be removed, so it only listens while a test wants it to


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect what the interpreter reports of reaching out of itself."""
    global _seen
    calls: list[str] = []
    _seen = calls
    try:
        yield calls
    finally:
        _seen = None


@pytest.mark.parametrize("payload", ESCAPES)
def test_no_template_reaches_python(payload: str) -> None:
    with listening() as system_calls:
        try:
            printed = ChatTemplate(TemplateSource(payload)).render([Message("user", "hi")]).text
        except UnsupportedChat as error:
            printed = str(error)
    assert system_calls == []
    assert not any(secret in printed for secret in SECRETS)


def test_the_audit_would_notice() -> None:
    with listening() as system_calls, Path("/dev/null").open():
        pass
    assert len(system_calls) == 1


def test_what_templates_do_use() -> None:
    text = (
        "{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}"
        "{% for x in 'ab' %}{{ loop.index }}{{ loop.cycle('-', '+') }}{% endfor %}"
        "{{ {'a': 1}.items() | list }}{{ ' a'.strip() }}{{ '{}!'.format('x') }}"
        "{{ [1, 2][::-1] }}{{ dict(a=1).get('a') }}{% set c = cycler('o', 'e') %}{{ c.next() }}"
        "{{ none.x is defined }}{{ (1).real }}{{ 'a,b'.split(',') | join }}"
    )
    printed = ChatTemplateEnvironment().from_string(text).render()
    assert printed == "21-2+[('a', 1)]ax![2, 1]1oFalse1ab"
