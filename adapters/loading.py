"""What the load adapters share: transformers, imported here alone and only when a model loads."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_REFINED_WEB = ("RefinedWeb", "RefinedWebModel")
_RENAMED = {
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_head_kv": "num_kv_heads",
}


def load_pretrained(
    model_path: str,
    options: dict[str, Any],
    *,
    model_class: str = "AutoModelForCausalLM",
    tokenizer_options: dict[str, Any] | None = None,
) -> tuple[Any, Any]:
    """Load a folder of safetensors with transformers and return `(model, tokenizer)`.

    `options` go to the model's `from_pretrained`. A pickle checkpoint is refused, and so is a
    model with code of its own unless the operator allows it (`trust_remote_code` in `options`).
    Raises what transformers does.
    """
    transformers = import_module("transformers")
    options = {"trust_remote_code": False, **options, "use_safetensors": True}
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        model_path, trust_remote_code=options["trust_remote_code"], **(tokenizer_options or {})
    )
    model = getattr(transformers, model_class).from_pretrained(model_path, **options)
    return model, tokenizer


def model_type(model_path: str) -> str:
    """Return what a folder's `config.json` calls its architecture; "" if nothing."""
    return str(_config(model_path).get("model_type", ""))


def is_encoder_decoder(model_path: str) -> bool:
    """Tell whether a folder's `config.json` says that its model is an encoder and a decoder."""
    config = _config(model_path)
    return bool(config.get("is_encoder_decoder")) or config.get("model_type") in ("t5", "mt5")


def load_falcon(model_path: str, options: dict[str, Any], *, pad_token_id: int) -> tuple[Any, Any]:
    """Load a Falcon; a folder of its first release gets the configuration of later ones.

    Those folders call it RefinedWeb (40B) or RefinedWebModel (7B, 1B) and bring code of their
    own, the same that transformers has as Falcon since 4.33. Raises what transformers does.
    """
    written = _config(model_path)
    model_class = "AutoModelForCausalLM"
    if written.get("model_type") in _REFINED_WEB:
        model_class = "FalconForCausalLM"
        config = import_module("transformers").FalconConfig(**_falcon_fields(written))
        options = {**options, "config": config}
    model, tokenizer = load_pretrained(model_path, options, model_class=model_class)
    tokenizer.pad_token_id = pad_token_id
    return model, tokenizer


def _config(model_path: str) -> dict[str, Any]:
    written, _ = import_module("transformers").PretrainedConfig.get_config_dict(model_path)
    return dict(written)


def _falcon_fields(written: dict[str, Any]) -> dict[str, Any]:
    fields = {_RENAMED.get(name, name): value for name, value in written.items()}
    for name in ("model_type", "architectures", "auto_map"):
        fields.pop(name, None)
    return {**fields, "new_decoder_architecture": written["model_type"] == "RefinedWeb"}


def default_device() -> str:
    """Return `cuda`, `mps` or `cpu`: the best that torch has here."""
    torch = import_module("torch")
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_chatglm(model_path: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Load a ChatGLM of either generation with the project's own model of it.

    Its file belongs to the engines and is imported by name when a model loads, because
    adapters know nothing of engines: `load(model_path, options) -> (model, tokenizer)`.
    """
    model, tokenizer = import_module("engines.chatglm").load(model_path, options)
    return model, tokenizer
