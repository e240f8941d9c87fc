"""The whole of a download: plan, space, files, place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from server.pull.errors import HUB_ERRORS
from server.pull.fetch import fetch
from server.pull.files import RemoteFile
from server.pull.hub import Hub
from server.pull.plan import Plan
from server.pull.store import Store

Report = Callable[[RemoteFile, int], None]
"""Is told, for a file, how many of its bytes are there."""


def download(plan: Plan, hub: Hub, store: Store, report: Report) -> Path:
    """Download a plan's files and return the model's folder. Raises `PullError`.

    What arrived before an error or an interruption is kept, and taken up the next time.
    """
    return store.fill(plan.source, plan.files, lambda folder: _fetch(plan, hub, folder, report))


def _fetch(plan: Plan, hub: Hub, folder: Path, report: Report) -> None:
    # One after another: a download is as fast as the network, and a broken one loses one part.
    for file in plan.files:
        try:
            fetch(file, folder, hub.headers, partial(report, file))
        except HUB_ERRORS as error:
            raise hub.explain(error, plan.source.repo) from error
