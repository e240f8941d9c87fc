"""Which part of a path says what a model is: folders have names for other reasons too."""

from __future__ import annotations

import re
from pathlib import PurePath

_QUANTISATION = r"(?:i?q\d[a-z0-9-]*|b?f(?:p)?(?:16|32)|int[48]|[48]-?bit)"
# What files and folders are called whatever the model: weights in pieces, revisions of a cache.
_SAYS_NOTHING = re.compile(
    rf"(?:ggml-?)?(?:model|pytorch-model|consolidated)?[-.]?{_QUANTISATION}?"
    r"(?:-\d+-of-\d+)?(?:\.(?:gguf|bin|safetensors))?"
    r"|[0-9a-f]{7,64}|snapshots|main|latest|gguf|hf|safetensors|weights|merged|final"
    r"|checkpoint(?:-\d+)?"
)


def plain_name(name: str) -> str:
    """Return a name in lower case, with `-` for `_` and blanks, without its organisation."""
    return re.sub(r"[_ ]", "-", name.lower().rpartition("--")[2])


def telling_name(model_path: str) -> str:
    """Return the plain name in the last part of a path that names a model; "" if none does.

    Only that part counts. `…/vicuna-13b/ggml-model-q4_0.gguf` is named by its folder, but
    `vicuna/llama-2-7b.gguf` is not, and neither is `vicuna-tests/qwen2.5/model.gguf`.
    """
    for part in reversed(PurePath(model_path).parts):
        name = plain_name(part)
        if not _SAYS_NOTHING.fullmatch(name):
            return name
    return ""
