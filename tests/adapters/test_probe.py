from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import pytest

import adapters.probe as probe_module
from adapters.errors import TemplateError
from adapters.probe import Abilities, find_abilities, probe
from adapters.templates import TemplateSource
from tests.adapters.payloads import BOMBS
from tests.adapters.shapes import CHATML, LLAMA_2, LLAMA_3, MISTRAL

NO_TOOLS = Abilities(tools=False, tool_results=False, long_call_ids=False)
ROLES = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("source", "abilities"),
    [
        (CHATML, replace(NO_TOOLS, turn_end="<|im_end|>")),
        (
            LLAMA_2,
            replace(NO_TOOLS, late_system=False, repeated_roles=False, turn_end="</s>"),
        ),
        (MISTRAL, Abilities(False, False, False, False, False, False, turn_end="</s>")),
        (LLAMA_3, Abilities(turn_end="<|eot_id|>")),
        (TemplateSource(ROLES), NO_TOOLS),
        (
            TemplateSource("{% for m in messages %}{% for p in m.content %}{{ p.text }}"
                           "{% endfor %}{% endfor %}<think>\n"),
            replace(NO_TOOLS, content_parts=True, opens_reasoning=True),
        ),
    ],
    ids=["chatml", "llama-2", "mistral", "llama-3", "roles", "parts"],
)  # fmt: skip
def test_abilities(source: TemplateSource, abilities: Abilities) -> None:
    assert find_abilities(source) == abilities


def test_a_template_that_refuses_to_end_with_an_answer_has_no_turn_end() -> None:
    text = "{% if messages[-1].role != 'user' %}{{ raise_exception('no') }}{% endif %}" + ROLES
    assert find_abilities(TemplateSource(text)).turn_end is None


def test_a_token_that_also_closes_parts_of_a_turn_is_no_turn_end() -> None:
    text = (
        "{% for m in messages %}{% if m.role == 'assistant' %}<open>think<close>{% endif %}"
        "<open>{{ m.content }}<close>{% endfor %}"
    )
    assert find_abilities(TemplateSource(text, ("<open>", "<close>"))).turn_end is None


def test_short_ids_of_calls() -> None:
    text = ROLES + (
        "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
        "{% for m in messages %}{% if m.tool_calls and m.tool_calls[0].id | length != 9 %}"
        "{{ raise_exception('ids have 9 characters') }}{% endif %}{% endfor %}"
    )
    abilities = find_abilities(TemplateSource(text))
    assert abilities.tool_results and not abilities.long_call_ids


def test_the_child_reports_what_it_found() -> None:
    assert probe("m", CHATML) == find_abilities(CHATML)


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_harm_the_child_only(bomb: str) -> None:
    with pytest.raises(
        TemplateError, match="the chat template of 'evil' does not work: "
    ) as raised:
        probe("evil", TemplateSource(bomb + "{{ messages[0].content }}"))
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{% if %}", "TemplateSyntaxError: Expected an expression"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError: access to attribute '__class__'"),
        ("{{ raise_exception('never') }}", "ChatRefused: never"),
        ("{{ 'constant' }}", "it does not print the user's message"),
        ("{{ 'a' * 2000000000 }}", "it needs more than 1024 MiB of memory"),
    ],
)
def test_the_error_says_why(text: str, reason: str) -> None:
    with pytest.raises(TemplateError, match=reason):
        probe("m", TemplateSource(text))


def run_main(monkeypatch: pytest.MonkeyPatch, text: str) -> dict[str, Any]:
    """What the child would print, without its limits."""
    out = io.StringIO()
    source = json.dumps(asdict(TemplateSource(text)))
    monkeypatch.setattr(sys, "stdin", io.StringIO(source))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    probe_module.main()
    report: dict[str, Any] = json.loads(out.getvalue())
    return report


def test_main_reports_abilities(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Abilities(**run_main(monkeypatch, ROLES)) == NO_TOOLS


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("x", "it does not print the user's message"),
        ("{% x %}", "TemplateSyntaxError: Encountered unknown tag 'x'."),
    ],
)
def test_main_reports_errors(monkeypatch: pytest.MonkeyPatch, text: str, error: str) -> None:
    assert run_main(monkeypatch, text) == {"error": error}


def test_a_long_reason_is_cut() -> None:
    with pytest.raises(TemplateError) as raised:
        probe("m", TemplateSource("{{ raise_exception('x' * 9999) }}"))
    assert len(str(raised.value)) < 400


def test_a_child_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "WALL_SECONDS", 0.001)
    with pytest.raises(TemplateError, match="it took longer than 0 s"):
        probe("m", CHATML)


def test_a_child_that_dies_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TemplateError, match="the process that tried it ended with 1"):
        probe("m", CHATML)


@pytest.mark.parametrize("number", [-24, -9])
def test_a_child_killed_by_its_limit(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    ended = subprocess.CompletedProcess([], number, b"", b"")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: ended)
    with pytest.raises(TemplateError, match="it needs more than 2 s of processor time"):
        probe("m", CHATML)
