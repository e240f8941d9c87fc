"""ChatGLM-6B and ChatGLM2-6B without their authors' code: weights, tokenizer, loader.

`load` needs torch, safetensors and sentencepiece, the later generations transformers too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load(model_path: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Load the folder of a ChatGLM, of whichever generation its `config.json` says it is.

    Of `kwargs`, the arguments of `from_pretrained`, `dtype` (or `torch_dtype`) counts: float32
    unless it says bfloat16 or float16. The weights are safetensors. Returns the model, which is
    a `engines.transformers.special.SpecialModel` on the CPU, and its tokenizer, a
    `engines.transformers.vocabulary.Vocabulary`. Raises `ModelLoadError`.
    """
    # Here, because that imports torch.
    from engines.chatglm.loading import load as load_folder

    return load_folder(Path(model_path).expanduser(), kwargs)
