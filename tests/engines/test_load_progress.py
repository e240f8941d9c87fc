"""Reports of a load's progress go to whoever runs the load, and to nobody else."""

from __future__ import annotations

from engines.load_progress import load_progress_to, report_load_progress


def test_reports_are_heard_inside_only() -> None:
    heard: list[str] = []
    report_load_progress("before")
    with load_progress_to(heard.append):
        report_load_progress("inside")
    report_load_progress("after")
    assert heard == ["inside"]
