"""The one error of a download, and what Hugging Face's errors mean to the person who waits."""

from __future__ import annotations

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


class PullError(Exception):
    """A download cannot be made or finished. The message says why and what would help."""


HUB_ERRORS = (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, OSError)


def explain(error: Exception, repo: str, endpoint: str, *, has_token: bool) -> PullError:
    """Return the error to raise for one of `HUB_ERRORS` about a repository, or an address."""
    page = f"{endpoint}/{repo}"
    match error:
        case GatedRepoError() if has_token:
            return PullError(
                f"{repo} is gated, and the account of HF_TOKEN has no access yet: accept its "
                f"licence at {page} with that account, wait if its authors grant access by hand, "
                "then run this again"
            )
        case GatedRepoError():
            return PullError(
                f"{repo} is gated: accept its licence at {page}, make a token with read access at "
                f"{endpoint}/settings/tokens, set it as HF_TOKEN in .env, then run this again"
            )
        case RevisionNotFoundError():
            return PullError(f"{repo} has no such revision: its revisions are listed at {page}")
        case RepositoryNotFoundError():
            return PullError(
                f"{repo} is not at {endpoint}, or is private: check its name; a private one needs "
                "HF_TOKEN of an account that may read it"
            )
        case HfHubHTTPError() if error.response.status_code == 401:
            return PullError(f"{endpoint} does not accept HF_TOKEN: make a new one and set it")
        case HfHubHTTPError():
            status = error.response.status_code
            return PullError(f"{repo}: the server answered {status}; try again later")
        case OfflineModeIsEnabled():
            return PullError("HF_HUB_OFFLINE is set, so nothing is downloaded: unset it")
        case httpx2.ConnectError():
            return PullError(
                f"{endpoint} cannot be reached ({error}): check the network, or set HF_ENDPOINT to "
                "a mirror"
            )
        case httpx2.HTTPError():
            return PullError(
                f"the connection for {repo} broke ({error or type(error).__name__}): run this "
                "again, it goes on where it stopped"
            )
        case _:
            return PullError(f"{repo}: {error}: run this again, it goes on where it stopped")
