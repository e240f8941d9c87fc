from __future__ import annotations

import hashlib
import logging
import sys
from pathlib import Path

import pytest

from adapters import Message, PartsPrompt, Special, Text, chat_adapters, load_file
from adapters.errors import AdapterFileError
from adapters.registry import llm_adapters

EXAMPLE = Path(__file__).parents[2] / "examples" / "new_family.py"
UNREGISTERED = """
from adapters import BaseChatAdapter, BaseLLMAdapter

class Base(BaseChatAdapter):
    def match(self, model_path):
        return self.name in model_path

class OwlChatAdapter(Base):
    pass

class OwlLLMAdapter(BaseLLMAdapter):
    def match(self, model_path):
        return "owl" in model_path

class Unrelated:
    pass
"""

pytestmark = pytest.mark.usefixtures("own_adapters")


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.py"
    file.write_text(text)
    return file


def test_the_example_adds_a_family() -> None:
    load_file(EXAMPLE)
    adapter = chat_adapters.resolve("parrot-7b")
    prompt = adapter.render([Message("user", "Hi"), Message("assistant", "Hello</s>")])
    assert isinstance(prompt, PartsPrompt)
    assert prompt.parts == (
        Text("Human: Hi\nParrot: Hello</s>"), Special("</s>"), Text("Parrot:"),
    )  # fmt: skip


def test_the_example_is_as_short_as_promised() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 15


def test_a_file_is_run_once_and_its_hash_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path, UNREGISTERED)
    with caplog.at_level(logging.INFO):
        digest = load_file(file)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"{file}, sha256 {digest}" in caplog.text
    before = len(chat_adapters.adapters)
    assert load_file(file) == digest
    assert len(chat_adapters.adapters) == before


def test_classes_of_a_file_that_registers_nothing(tmp_path: Path) -> None:
    load_file(written(tmp_path, UNREGISTERED))
    assert [type(a).__name__ for a in chat_adapters.adapters[-1:]] == ["OwlChatAdapter"]
    assert type(llm_adapters.resolve("owl")).__name__ == "OwlLLMAdapter"


@pytest.mark.parametrize(
    ("text", "reason"),
    [("1 / 0", "ZeroDivisionError: division by zero"), ("def", "SyntaxError"), ("\0", "null byte")],
)
def test_a_file_that_fails(tmp_path: Path, text: str, reason: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(AdapterFileError, match=f"ADAPTER_FILES: {file}: .*{reason}"):
        load_file(file)
    assert not any(name.startswith("parlm_user_adapters.") for name in sys.modules)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AdapterFileError, match="No such file or directory"):
        load_file(tmp_path / "none.py")


def test_a_file_anyone_may_write_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "raise SystemExit")
    file.chmod(0o666)
    with pytest.raises(AdapterFileError, match="chmod o-w"):
        load_file(file)


def test_a_file_anyone_may_replace_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(AdapterFileError, match="its folder"):
        load_file(written(folder, "raise SystemExit"))
    folder.chmod(0o1777)
    file = written(folder, "")
    assert load_file(file)
