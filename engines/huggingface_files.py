"""Reads the small files of a Hugging Face model folder, and checks its weights' headers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.errors import ModelLoadError
from engines.safetensors_header import check_safetensors
from engines.types import ModelDescription

MAX_JSON_BYTES = 64 * 1024 * 1024
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")
# The names families use for the context length; those of the first releases last.
_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "seq_length",
    "max_sequence_length",
    "max_seq_len",
)
# Tokenizers without a limit say so with a huge number.
_NO_LIMIT = 10**9


def describe_folder(name: str, folder: Path) -> ModelDescription:
    """Describe a folder of safetensors weights, tokenizer and configuration.

    Raises `ModelLoadError` for what is missing or damaged, and `OSError`.
    """
    config = read_json(folder / "config.json")
    tokenizer = _read_optional(folder / "tokenizer_config.json")
    added = _added_tokens(folder, tokenizer)
    weights = _weights(folder)
    parameters = [check_safetensors(file) for file in weights]
    return ModelDescription(
        name=name,
        path=str(folder),
        format="safetensors",
        architecture=_text(config.get("model_type")) or "",
        vocab_size=_vocab_size(config),
        context_length=_context_length(config, tokenizer),
        chat_template=_chat_template(folder, tokenizer),
        bos_token=_token(tokenizer, config, "bos", added),
        eos_token=_token(tokenizer, config, "eos", added)
        or _token({}, _read_optional(folder / "generation_config.json"), "eos", added),
        special_tokens=tuple(token for token, is_special in added.values() if is_special),
        size_bytes=sum(file.stat().st_size for file in weights),
        parameters=sum(parameters) if all(parameters) else 0,
        variant=_variant(config),
        has_remote_code=_has_remote_code(config, tokenizer),
    )


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `ModelLoadError` that names the file."""
    if not file.is_file():
        raise ModelLoadError(f"{file} is missing: download the whole model folder")
    if file.stat().st_size > MAX_JSON_BYTES:
        raise ModelLoadError(f"{file} is larger than {MAX_JSON_BYTES} bytes; refused")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{file} is not valid JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{file} should hold a JSON object; download it again")
    return content


def _read_optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}


def _weights(folder: Path) -> list[Path]:
    """The weight files: those an index names, or all. Raises `ModelLoadError` for a missing one."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return _unlisted_weights(folder)
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(n, str) for n in named.values()):
        raise ModelLoadError(f"{index} names no weight files; download it again")
    names = sorted(set(named.values()))
    for name in names:
        if name != Path(name).name:
            raise ModelLoadError(f"{index} names {name!r}, a file outside its folder; refused")
        if not (folder / name).is_file():
            raise ModelLoadError(f"{folder / name} is missing: finish the download of the model")
    return [folder / name for name in names]


def _unlisted_weights(folder: Path) -> list[Path]:
    """All weight files of a folder without an index. Numbered ones must be all there."""
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        if (shard := _SHARD.fullmatch(file.name)) is None:
            continue
        for number in range(1, int(shard["total"]) + 1):
            part = file.with_name(f"{shard['stem']}-{number:05}-of-{shard['total']}.safetensors")
            if not part.is_file():
                raise ModelLoadError(f"{part} is missing: finish the download of the model")
    return files


def _context_length(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int:
    """The context length in tokens; 0 when no file tells."""
    inner = config.get("text_config")
    for source in (config, inner if isinstance(inner, dict) else {}):
        for key in _CONTEXT_KEYS:
            if (length := _positive(source.get(key))) is not None:
                return length
    length = _positive(tokenizer.get("model_max_length"))
    return length if length is not None and length < _NO_LIMIT else 0


def _vocab_size(config: Mapping[str, Any]) -> int:
    """The number of token ids; the later ChatGLMs have a name of their own for it."""
    inner = config.get("text_config")
    for source in (config, inner if isinstance(inner, dict) else {}):
        for key in ("vocab_size", "padded_vocab_size"):
            if (size := _positive(source.get(key))) is not None:
                return size
    return 0


def _variant(config: Mapping[str, Any]) -> str:
    """Tell ChatGLM-6B ("v1") from its later generations: of one `model_type`, not of one shape."""
    marks = ("position_encoding_2d", "inner_hidden_size")
    is_first = config.get("model_type") == "chatglm" and any(mark in config for mark in marks)
    return "v1" if is_first else ""


def _has_remote_code(*files: Mapping[str, Any]) -> bool:
    """Tell whether a file names classes in the folder's own Python code."""
    return any(bool(file.get("auto_map")) for file in files)


def _positive(value: object) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and isinstance(value, int) and value > 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _chat_template(folder: Path, tokenizer: Mapping[str, Any]) -> str | None:
    """The template of a file of its own, else of the tokenizer's; of several the default."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        with file.open("rb") as opened:
            return opened.read(MAX_JSON_BYTES).decode("utf-8", "replace")
    template = tokenizer.get("chat_template")
    if isinstance(template, list):
        named = (entry for entry in template if isinstance(entry, dict))
        template = next((t.get("template") for t in named if t.get("name") == "default"), None)
    return _text(template)


def _added_tokens(folder: Path, tokenizer: Mapping[str, Any]) -> dict[int, tuple[str, bool]]:
    """Id -> (token, whether it is special) of the tokens outside the base vocabulary."""
    decoder = tokenizer.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        entries = [(key, value) for key, value in decoder.items() if isinstance(value, dict)]
    else:
        listed = _read_optional(folder / "tokenizer.json").get("added_tokens")
        listed = listed if isinstance(listed, list) else []
        entries = [(token.get("id"), token) for token in listed if isinstance(token, dict)]
    return {
        int(key): (token["content"], token.get("special") is True)
        for key, token in entries
        # Ids have a few digits; a hostile key of thousands would be refused by `int`.
        if isinstance(token.get("content"), str) and re.fullmatch("[0-9]{1,10}", str(key))
    }


def _token(
    tokenizer: Mapping[str, Any],
    config: Mapping[str, Any],
    which: str,
    added: Mapping[int, tuple[str, bool]],
) -> str | None:
    """The BOS or EOS token: by its name in the tokenizer's file, else by its id."""
    named = tokenizer.get(f"{which}_token")
    named = named.get("content") if isinstance(named, dict) else named
    if isinstance(named, str):
        return named
    index = config.get(f"{which}_token_id")
    index = index[0] if isinstance(index, list) and index else index
    return added[index][0] if isinstance(index, int) and index in added else None
