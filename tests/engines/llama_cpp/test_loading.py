from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from engines.errors import ModelLoadError
from engines.llama_cpp.config import LlamaCppOptions
from engines.llama_cpp.loading import load
from engines.load_progress import load_progress_to
from tests.engines.gptj_files import GPTJ, Q4_0


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load(LlamaCppOptions(str(path), n_threads=1, **options))
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    assert "LLM_MODEL_PATH" in refusal(tmp_path / "none.gguf")


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / ("long" * 100))


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    assert "not a GGUF" in refusal(path)


@pytest.mark.parametrize("magic", [0x67676D6C, 0x67676D66, 0x67676A74, 0x67676C61])
def test_a_file_of_the_old_format(tmp_path: Path, magic: int) -> None:
    path = tmp_path / "ggml-model-q4_0.bin"
    path.write_bytes(magic.to_bytes(4, "little") + bytes(32))
    assert "August 2023" in refusal(path)


def test_the_old_file_of_a_gptj_is_converted_and_its_progress_told(tmp_path: Path) -> None:
    path = tmp_path / "ggml-gpt4all-j-v1.3-groovy.bin"
    path.write_bytes(GPTJ().pack(Q4_0))
    for expected in (["0 % done", "100 % done", f"which was made of {path}"], ["made of"]):
        told: list[str] = []
        with load_progress_to(told.append):
            model, context, _ = load(LlamaCppOptions(str(path), n_threads=1, n_slots=1))
        context.close()
        model.close()
        assert told[-1].startswith(f"reading {path}.gguf")
        assert len(told) <= 22
        for words in expected:
            assert any(words in each for each in told), words
    assert len(told) == 1


def test_the_damaged_old_file_of_a_gptj(tmp_path: Path) -> None:
    path = tmp_path / "ggml-gpt4all-j-v1.3-groovy.bin"
    path.write_bytes(GPTJ().pack(Q4_0)[:-1])
    assert "truncated" in refusal(path)


def test_a_truncated_file_says_what_llama_cpp_said(tiny_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(tiny_gguf.read_bytes()[:100_000])
    message = refusal(path)
    assert "not within the file bounds" in message
    assert "damaged" in message


def test_an_unknown_architecture_is_named(tiny_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "strange.gguf"
    raw = tiny_gguf.read_bytes()
    at = raw.index(b"llama")
    path.write_bytes(raw[:at] + b"lambo" + raw[at + 5 :])
    assert "lambo" in refusal(path)


def test_a_context_that_does_not_fit_into_memory(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Asking for it in earnest would succeed: memory that is not touched costs nothing.
    monkeypatch.setattr("engines.llama_cpp.binding.native.llama_init_from_model", lambda *_: None)
    assert "Lower the number of slots" in refusal(tiny_gguf)


def test_a_model_that_does_not_generate_is_refused(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.llama_cpp.binding.native.llama_model_has_encoder", lambda _: True)
    assert "another engine" in refusal(tiny_gguf)


@pytest.mark.parametrize(("use_mmap", "use_mlock"), [(True, False), (False, False), (False, True)])
def test_ways_to_hold_the_weights(tiny_gguf: Path, use_mmap: bool, use_mlock: bool) -> None:
    options = LlamaCppOptions(
        str(tiny_gguf), n_threads=1, n_slots=1, use_mmap=use_mmap, use_mlock=use_mlock
    )
    model, context, size = load(options)
    assert (size.n_slots, size.context_length) == (1, model.trained_context_length)
    context.close()
    model.close()


def test_defaults_that_do_not_fit_into_the_memory_shrink(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # 256 bytes a token, 512 tokens a slot: room for two slots beside the weights.
    monkeypatch.setattr(
        "engines.llama_cpp.loading.free_memory", lambda: tiny_gguf.stat().st_size + 400_000
    )
    model, context, size = load(LlamaCppOptions(str(tiny_gguf), n_threads=1))
    context.close()
    model.close()
    assert size.n_slots == 2
    assert "LIMIT_MODEL_CONCURRENCY" in caplog.text


def test_a_context_of_no_tokens_is_refused(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.llama_cpp.binding.native.llama_model_n_ctx_train", lambda _: -1)
    assert "damaged" in refusal(tiny_gguf)
