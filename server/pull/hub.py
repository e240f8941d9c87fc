"""Hugging Face, or a mirror of it: what a repository holds, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HFValidationError

from server.pull.errors import HUB_ERRORS, PullError, explain
from server.pull.files import Checksum, RemoteFile

_LISTING_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at one commit."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]


class Hub:
    """A hub at `endpoint`. `token` None sends none, whatever else the machine has stored."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self.endpoint = endpoint
        self.token = token
        self._api = HfApi(endpoint=endpoint, token=token or False)

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of a request to the hub, the token among them."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def list(self, repo: str, revision: str) -> Listing:
        """Return what a repository holds at a branch, tag or commit. Raises `PullError`."""
        try:
            info = self._api.model_info(
                repo, revision=revision, files_metadata=True, timeout=_LISTING_SECONDS
            )
        except HFValidationError as error:
            raise PullError(f"{repo!r} is not the name of a repository: {error}") from error
        except HUB_ERRORS as error:
            raise self.explain(error, repo) from error
        commit = info.sha or revision
        files = tuple(
            RemoteFile(
                path=found.rfilename,
                url=hf_hub_url(repo, found.rfilename, revision=commit, endpoint=self.endpoint),
                size=found.size or 0,
                checksum=_checksum(repo, found.rfilename, found.lfs, found.blob_id),
            )
            for found in info.siblings or ()
        )
        return Listing(repo, commit, files)

    def explain(self, error: Exception, repo: str) -> PullError:
        """Return the error to raise for one of `HUB_ERRORS`."""
        return explain(error, repo, self.endpoint, has_token=self.token is not None)


def _checksum(repo: str, path: str, lfs: object, blob_id: str | None) -> Checksum:
    """Large files have a SHA-256, the others the id that git gives them."""
    sha256 = getattr(lfs, "sha256", None)
    if isinstance(sha256, str):
        return Checksum("sha256", sha256)
    if blob_id is None:
        raise PullError(f"{repo}: the server gives no checksum of {path}; use another HF_ENDPOINT")
    return Checksum("git-sha1", blob_id)
