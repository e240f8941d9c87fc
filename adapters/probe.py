"""Try a chat template in a child process that may be killed, before this process compiles it.

Compiling alone can be fatal: Jinja folds `{{ 'a' * 2000000000 }}` while it compiles. The child
(`python -m adapters.probe`) gets the template on its standard input, limits its own processor
time and memory, renders small chats, and reports what the template can express.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapters.errors import TemplateError, UnsupportedChat
from adapters.templates import ChatTemplate, TemplateSource
from engines.types import Message, PartsPrompt, Text, Tool, ToolCall

CPU_SECONDS = 2
WALL_SECONDS = 15.0  # the processor time is what counts: a busy machine must not refuse a model
MEMORY_BYTES = 1024**3
"""Address space beyond what the interpreter holds when the template arrives."""

_MAX_REASON = 300

# Words that no template writes of its own accord.
_SYSTEM = Message("system", "probe1system")
_USER = Message("user", "probe2user")
_ANSWER = Message("assistant", "probe3answer")
_AGAIN = Message("user", "probe4again")
_TOOL = Tool("probe5tool", "probe", '{"type": "object", "properties": {}}')
_SHORT_ID = "probe6789"
_LONG_ID = "call_0123456789abcdef01234567"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a template can express, found by rendering.

    `late_system` is a system message after others, `repeated_roles` two messages in a row of
    one role. `long_call_ids` are ids of calls as OpenAI's look; Mistral's templates insist on
    nine letters and digits. `content_parts` says that contents must be lists of parts.
    `turn_end` is the special token the template writes behind an answer. `opens_reasoning` says
    that its prompts end inside `<think>`.
    """

    system: bool = True
    late_system: bool = True
    repeated_roles: bool = True
    tools: bool = True
    tool_results: bool = True
    long_call_ids: bool = True
    content_parts: bool = False
    turn_end: str | None = None
    opens_reasoning: bool = False


def probe(model: str, source: TemplateSource) -> Abilities:
    """Return what a template can express. Takes some 0.3 s, at most `WALL_SECONDS`.

    Raises `TemplateError`, naming the model, when it does not render the simplest chat or goes
    beyond the limits.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-m", "adapters.probe"],
            input=json.dumps(asdict(source)).encode(),
            capture_output=True,
            timeout=WALL_SECONDS,
            cwd=Path(__file__).parent.parent,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TemplateError(model, f"it took longer than {WALL_SECONDS:.0f} s") from None
    try:
        report: dict[str, Any] = json.loads(child.stdout)
    except ValueError:
        raise TemplateError(model, _death(child.returncode, child.stderr)) from None
    if "error" in report:
        raise TemplateError(model, report["error"])
    return Abilities(**report)


def _death(returncode: int, stderr: bytes) -> str:
    if returncode == -getattr(signal, "SIGXCPU", 24) or returncode == -getattr(
        signal, "SIGKILL", 9
    ):
        return f"it needs more than {CPU_SECONDS} s of processor time"
    last_line = stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f"the process that tried it ended with {returncode}: {last_line[:_MAX_REASON]}"


def find_abilities(source: TemplateSource) -> Abilities:
    """Compile a template here and try it. Raises `UnsupportedChat`, or what Jinja raises."""
    template = ChatTemplate(source)
    prompt = template.render([_USER])
    content_parts = False
    if _USER.content not in prompt.text:
        content_parts = True
        prompt = template.render([_USER], content_parts=True)
        if _USER.content not in prompt.text:
            raise UnsupportedChat("it does not print the user's message")

    def prints(messages: Sequence[Message], tools: Sequence[Tool] = ()) -> bool:
        wanted = [m.content for m in messages] + [tool.name for tool in tools]
        with suppress(UnsupportedChat):
            text = template.render(messages, tools, content_parts=content_parts).text
            return all(word in text for word in wanted)
        return False

    return Abilities(
        system=prints([_SYSTEM, _USER]),
        late_system=prints([_USER, _ANSWER, _SYSTEM, _AGAIN]),
        repeated_roles=prints([_USER, _AGAIN]) and prints([_USER, _ANSWER, _ANSWER, _AGAIN]),
        tools=prints([_USER], [_TOOL]),
        tool_results=prints([_USER, *_call_and_result(_SHORT_ID)], [_TOOL]),
        long_call_ids=prints([_USER, *_call_and_result(_LONG_ID)], [_TOOL]),
        content_parts=content_parts,
        turn_end=_turn_end(template, content_parts),
        opens_reasoning=prompt.text.rstrip().endswith("<think>"),
    )


def _call_and_result(call_id: str) -> list[Message]:
    call = ToolCall(call_id, _TOOL.name, "{}")
    return [
        Message("assistant", tool_calls=(call,)),
        Message("tool", "probe7result", tool_call_id=call_id),
    ]


def _turn_end(template: ChatTemplate, content_parts: bool) -> str | None:
    """Return the special token that the template writes behind the last answer of a chat.

    One that it also writes inside a turn is none: stopping there would cut answers short.
    """
    try:
        prompt: PartsPrompt = template.render(
            [_USER, _ANSWER], add_generation_prompt=False, content_parts=content_parts
        )
    except UnsupportedChat:
        return None
    before: list[str] = []  # special tokens between the question and the answer
    has_asked = has_answered = False
    for part in prompt.parts:
        if isinstance(part, Text):
            has_asked = has_asked or _USER.content in part.text
            has_answered = has_answered or _ANSWER.content in part.text
        elif has_answered:
            return part.token if before.count(part.token) <= 1 else None
        elif has_asked:
            before.append(part.token)
    return None


def _limit_itself() -> None:
    """Bound this process's time and memory, where the system can (not on Windows)."""
    try:
        import resource
    except ModuleNotFoundError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    statm = Path("/proc/self/statm")
    held = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    with suppress(ValueError, OSError):  # macOS refuses a limit on address space
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, held + MEMORY_BYTES))


def main() -> None:
    """Read a template from standard input, write its abilities or an error to standard output."""
    fields = json.load(sys.stdin)
    fields["special_tokens"] = tuple(fields["special_tokens"])
    _limit_itself()
    try:
        report = asdict(find_abilities(TemplateSource(**fields)))
    except Exception as error:
        report = {"error": _reason(error)[:_MAX_REASON]}
    sys.stdout.write(json.dumps(report))


def _reason(error: BaseException) -> str:
    if isinstance(error, UnsupportedChat):
        # Behind the constant message for clients stands what Jinja said: that is for the log.
        return _reason(error.__cause__) if error.__cause__ else str(error)
    if isinstance(error, MemoryError):
        return f"it needs more than {MEMORY_BYTES // 1024**2} MiB of memory"
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
