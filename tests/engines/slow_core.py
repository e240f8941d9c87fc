"""A core that takes its time to load and says how far it has come, for tests of its parents."""

from __future__ import annotations

import time

from engines.echo_core import EchoCore
from engines.echo_reply import EchoOptions
from engines.load_progress import report_load_progress


def create_core(steps: int, seconds: float) -> EchoCore:
    """Load in so many steps of so many seconds each, with a report before each."""
    for step in range(steps):
        report_load_progress(f"step {step}")
        time.sleep(seconds)
    return EchoCore(EchoOptions())
