from __future__ import annotations

import logging

import pytest

from engines.llama_cpp.log import CONTINUE, ERROR, WARNING, NativeLog

INFO = 2


def test_errors_are_kept_until_taken() -> None:
    log = NativeLog()
    log.write(ERROR, "no such tensor\n")
    assert log.take_errors() == ("no such tensor",)
    assert log.take_errors() == ()


def test_only_the_last_errors_are_kept() -> None:
    log = NativeLog()
    for number in range(20):
        log.write(ERROR, f"error {number}\n")
    assert log.take_errors()[-1] == "error 19"


def test_warnings_and_errors_go_to_python_logging(caplog: pytest.LogCaptureFixture) -> None:
    log = NativeLog()
    log.write(INFO, "loading\n")
    log.write(WARNING, "strange token\n")
    log.write(CONTINUE, "....")
    log.write(ERROR, "broken\n")
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, "strange token"),
        (logging.ERROR, "broken"),
    ]


def test_a_continued_line_has_the_level_of_the_one_before() -> None:
    log = NativeLog()
    log.write(ERROR, "broken: ")
    log.write(CONTINUE, "for this reason\n")
    log.write(INFO, "loading")
    log.write(CONTINUE, "done\n")
    assert log.take_errors() == ("broken:", "for this reason")
