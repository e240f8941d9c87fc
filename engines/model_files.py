"""Tells what a model's files say of it, without loading weights or running anything in them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from engines.errors import ModelLoadError
from engines.gguf import GGUFHeader, read_gguf
from engines.gptj import legacy_file as gptj
from engines.huggingface_files import describe_folder
from engines.types import ModelDescription

# Files of before GGUF (August 2023): ggml, ggmf, ggjt, ggla, as they stand in the file. Of those,
# the first are read if they are a GPT-J's.
LEGACY_MAGICS = (gptj.MAGIC, b"fmgg", b"tjgg", b"algg")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pt2", ".pkl")
CONTROL_TOKEN_TYPE = 3

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf")
_TOKENS, _TOKEN_TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
_PICKLE_REMEDY = (
    "a pickle checkpoint, which can run any code when it is opened. Get the model as safetensors "
    "or GGUF, or run `parlm convert checkpoint` with its folder, which reads tensors alone"
)


def describe(name: str, path: Path) -> ModelDescription:
    """Describe the model in a .gguf file or a Hugging Face folder, under the given name.

    A folder with one GGUF file stands for that file; of a split file the first part is meant.
    The legacy GGML file of a GPT-J, or a folder with one, is described too: it can be converted.
    Raises `ModelLoadError`, which names the path, what is wrong with it and what would help.
    """
    try:
        if not path.exists():
            raise ModelLoadError(
                f"{path} does not exist: check LLM_MODEL_PATH, or download {name!r} first"
            )
        file = _file_in(path) if path.is_dir() else path
        if file is not None:
            return _describe_file(name, file)
        _refuse_without_safetensors(path)
        return describe_folder(name, path)
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error


def _file_in(folder: Path) -> Path | None:
    """The one file that is the folder's whole model, or None: GGUF, else a legacy GPT-J."""
    legacy = _legacy_in(folder, (gptj.MAGIC,))
    file = _gguf_in(folder, made={gptj.gguf_beside(source) for source in legacy})
    if file is not None or not legacy or any(folder.glob("*.safetensors")):
        return file
    if len(legacy) > 1:
        raise ModelLoadError(
            f"{folder} holds several GGML files ({_names(legacy)}): set LLM_MODEL_PATH to one"
        )
    return legacy[0]


def _legacy_in(folder: Path, magics: Collection[bytes]) -> list[Path]:
    files = sorted(file for file in folder.glob("*.bin") if file.is_file())
    return [file for file in files if _magic(file) in magics]


def _gguf_in(folder: Path, made: Collection[Path]) -> Path | None:
    """The one GGUF file of a folder, the first part if it is split, or None.

    Those `made` of legacy files are passed over: whether one is up to date is seen at the load.
    """
    files = sorted(
        file
        for file in folder.glob("*.gguf")
        # An image encoder lies beside its model and is none itself.
        if not (file.name.startswith("mmproj") or _is_later_shard(file) or file in made)
    )
    if len(files) > 1:
        raise ModelLoadError(
            f"{folder} holds several GGUF files ({_names(files)}): set LLM_MODEL_PATH to one"
        )
    return files[0] if files else None


def _is_later_shard(file: Path) -> bool:
    shard = _SHARD.fullmatch(file.name)
    return shard is not None and int(shard["number"]) != 1


def _refuse_without_safetensors(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    files = sorted(file for file in folder.iterdir() if file.is_file())
    if not files:
        raise ModelLoadError(f"{folder} holds no files: download the model into it")
    if legacy := _legacy_in(folder, LEGACY_MAGICS):
        raise _legacy_error(legacy[0])
    pickles = [file for file in files if file.suffix in PICKLE_SUFFIXES]
    if pickles:
        raise ModelLoadError(f"{folder} holds only {_PICKLE_REMEDY} ({_names(pickles)})")
    raise ModelLoadError(
        f"{folder} holds no weights, neither .gguf nor .safetensors ({_names(files)}): "
        "set LLM_MODEL_PATH to the model's file or folder, or finish its download"
    )


def _names(files: Sequence[Path], shown: int = 5) -> str:
    more = f", … {len(files) - shown} more" if len(files) > shown else ""
    return ", ".join(file.name for file in files[:shown]) + more


def _magic(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(4)


def _legacy_error(file: Path) -> ModelLoadError:
    return ModelLoadError(
        f"{file} is in the GGML format of before August 2023, which llama.cpp no longer reads: "
        "get a GGUF of the model, or convert it"
    )


def _describe_file(name: str, file: Path) -> ModelDescription:
    _refuse_other_formats(file)
    if _magic(file) == gptj.MAGIC:
        return _describe_legacy(name, gptj.read_legacy(file))
    return _describe_gguf(name, file)


def _describe_legacy(name: str, file: gptj.LegacyFile) -> ModelDescription:
    end = gptj.END_OF_TEXT.decode()
    return ModelDescription(
        name=name,
        path=str(file.path),
        format="ggml",
        architecture="gptj",
        context_length=file.shape.n_ctx,
        bos_token=end,
        eos_token=end,
        special_tokens=(end,),
        size_bytes=file.size,
    )


def _describe_gguf(name: str, file: Path) -> ModelDescription:
    parts = _shards(file)
    headers = [read_gguf(part, arrays=(_TOKENS, _TOKEN_TYPES)) for part in parts]
    header = headers[0]
    architecture = _text(header, "general.architecture") or ""
    context_length = header.metadata.get(f"{architecture}.context_length", 0)
    return ModelDescription(
        name=name,
        path=str(parts[0]),
        format="gguf",
        architecture=architecture,
        vocab_size=len(_strings(header, _TOKENS)),
        context_length=context_length if isinstance(context_length, int) else 0,
        chat_template=_text(header, "tokenizer.chat_template"),
        bos_token=_token(header, "tokenizer.ggml.bos_token_id", parts[0]),
        eos_token=_token(header, "tokenizer.ggml.eos_token_id", parts[0]),
        special_tokens=_control_tokens(header),
        size_bytes=sum(part.stat().st_size for part in parts),
        parameters=sum(math.prod(t.dimensions) for header in headers for t in header.tensors),
    )


def _refuse_other_formats(file: Path) -> None:
    if not file.is_file():
        raise ModelLoadError(f"{file} is neither a file nor a folder: check LLM_MODEL_PATH")
    magic = _magic(file)
    if magic == gptj.MAGIC:
        return
    if magic in LEGACY_MAGICS:
        raise _legacy_error(file)
    if file.suffix == ".safetensors":
        raise ModelLoadError(
            f"{file} is one file of a model: set LLM_MODEL_PATH to its folder, {file.parent}"
        )
    if magic != b"GGUF" and file.suffix in PICKLE_SUFFIXES:
        raise ModelLoadError(f"{file} is {_PICKLE_REMEDY}")


def _shards(file: Path) -> list[Path]:
    """All the parts of a split file, given any of them, or the file alone."""
    shard = _SHARD.fullmatch(file.name)
    if shard is None:
        return [file]
    total = int(shard["total"])
    parts = [
        file.with_name(f"{shard['stem']}-{number:05}-of-{total:05}.gguf")
        for number in range(1, total + 1)
    ]
    missing = [part for part in parts if not part.is_file()]
    if missing or not parts:
        raise ModelLoadError(
            f"{file} is part of a split model and others are missing ({_names(missing)}): "
            "download all parts into one folder"
        )
    return parts


def _text(header: GGUFHeader, key: str) -> str | None:
    value = header.metadata.get(key)
    return value if isinstance(value, str) else None


def _strings(header: GGUFHeader, key: str) -> tuple[object, ...]:
    value = header.metadata.get(key)
    return value if isinstance(value, tuple) else ()


def _token(header: GGUFHeader, key: str, file: Path) -> str | None:
    """The name of the token whose id stands under `key`, if one does."""
    index = header.metadata.get(key)
    tokens = _strings(header, _TOKENS)
    if not isinstance(index, int) or not tokens:
        return None
    if not 0 <= index < len(tokens):
        raise ModelLoadError(
            f"{file} is damaged: {key} is {index} and the vocabulary has {len(tokens)} tokens"
        )
    return str(tokens[index])


def _control_tokens(header: GGUFHeader) -> tuple[str, ...]:
    pairs = zip(_strings(header, _TOKENS), _strings(header, _TOKEN_TYPES), strict=False)
    return tuple(str(token) for token, kind in pairs if kind == CONTROL_TOKEN_TYPE)
