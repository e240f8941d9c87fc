"""Files of a repository, and which of them make one model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from server.pull.errors import PullError

ModelFormat = Literal["safetensors", "gguf"]

# What is downloaded beside weights: configuration, tokenizers, chat templates, licences. None of
# it is code, and none of it runs code when it is read.
_ALLOWED = (".json", ".model", ".txt", ".jinja", ".tiktoken")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pt2", ".pkl")
# Which quantisation is meant when none is said, the best compromise first.
_PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_K", "Q4", "Q5_K_M", "Q4_0", "Q6_K", "Q8_0", "F16", "BF16")
_QUANT = re.compile(
    r"(?<![a-z0-9])(i?q\d(?:_[a-z0-9]+)*|mxfp4|bf16|fp?16|fp?32)"
    r"(?=(?:-\d{5}-of-\d{5})?\.gguf$)",
    re.IGNORECASE,
)
# Copies of the same weights in another precision, or in the layout of the authors' own code.
_COPY = re.compile(r"consolidated.*|model\.(?:fp16|bf16|fp32)[.-].*")


@dataclass(frozen=True, slots=True)
class Checksum:
    """How a file is checked. `git-sha1` is the id git gives a file of this content."""

    algorithm: Literal["sha256", "git-sha1", "md5"]
    value: str


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to download. `path` is its place in the repository, `size` in bytes.

    `needs_token` says that the token of the hub may be sent for it.
    """

    path: str
    url: str
    size: int
    checksum: Checksum
    needs_token: bool = field(default=True)

    @property
    def name(self) -> str:
        """Its name on the disk: all files of a model lie in one folder."""
        return PurePosixPath(self.path).name


def select_gguf(
    files: Iterable[RemoteFile], quant: str | None, repo: str
) -> tuple[str, Sequence[RemoteFile]]:
    """Return the quantisation and its file, or the parts of it. Raises `PullError`.

    `quant` is a name such as Q4_K_M, its case does not matter; None takes a usual one.
    """
    by_quant: dict[str, list[RemoteFile]] = {}
    for file in files:
        # Encoders of images and measurements for quantising lie beside models.
        is_model = not file.name.lower().startswith("mmproj") and "imatrix" not in file.name
        if is_model and (found := quant_of(file.name)) is not None:
            by_quant.setdefault(found, []).append(file)
    if not by_quant:
        raise PullError(f"{repo} holds no GGUF file whose name says its quantisation")
    wanted = _plain(quant) if quant is not None else _usual(by_quant)
    if wanted not in by_quant:
        raise PullError(f"--quant {quant}: {repo} has {', '.join(sorted(by_quant))}")
    chosen = by_quant[wanted]
    if len(chosen) > 1 and not all(re.search(r"-\d{5}-of-\d{5}\.", f.name) for f in chosen):
        names = ", ".join(sorted(file.path for file in chosen))
        raise PullError(f"{repo} has several files of {wanted} ({names}): download one by hand")
    return wanted, sorted(chosen, key=lambda file: file.name)


def quant_of(name: str) -> str | None:
    """Return the quantisation that a GGUF file's name ends with, as `Q4_K_M`, or None."""
    found = _QUANT.search(name)
    return None if found is None else _plain(found[1])


def _plain(quant: str) -> str:
    return quant.upper().replace("FP", "F") if not quant.upper().startswith("MX") else "MXFP4"


def _usual(available: Collection[str]) -> str:
    return next((quant for quant in _PREFERRED if quant in available), min(available))


def select_safetensors(
    files: Iterable[RemoteFile], repo: str, *, may_be_pickle: bool, may_have_code: bool
) -> Sequence[RemoteFile]:
    """Return configuration, tokenizer and weights of a repository's top folder, in this order.

    Pickle, which can run any code when it is opened, is taken only where `may_be_pickle` and
    there is nothing else; Python code only where `may_have_code`. Raises `PullError`.
    """
    top = [f for f in files if "/" not in f.path and not f.name.startswith(".")]
    weights = [file for file in top if file.name.endswith(".safetensors")]
    weights = [file for file in weights if not _COPY.fullmatch(file.name)] or weights
    allowed = _ALLOWED + ((".py",) if may_have_code else ())
    rest = [f for f in top if f.name.endswith(allowed) or f.name in ("LICENSE", "NOTICE")]
    if weights:
        return [*(f for f in rest if not f.name.startswith("pytorch_model")), *weights]
    pickles = [file for file in top if file.name.endswith(_PICKLES)]
    if pickles and may_be_pickle:
        return [*rest, *(f for f in pickles if f.name.startswith("pytorch_model"))]
    if pickles:
        raise PullError(
            f"{repo} holds its weights as pickle only ({pickles[0].name}), which can run any code "
            "when it is opened: nothing was downloaded"
        )
    raise PullError(f"{repo} holds no safetensors")


def has_safetensors(files: Iterable[RemoteFile]) -> bool:
    """Tell whether there are safetensors in the top folder."""
    return any("/" not in f.path and f.name.endswith(".safetensors") for f in files)


def has_gguf(files: Iterable[RemoteFile]) -> bool:
    """Tell whether there is a GGUF file anywhere."""
    return any(file.name.endswith(".gguf") for file in files)
