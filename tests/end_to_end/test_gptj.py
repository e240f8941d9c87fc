"""gptj-6b from its legacy file: converted at the first start, served, not converted again."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from tests.engines.gptj_files import GPTJ, Q4_0, stored
from tests.serving import program

PROMPT, N = "hello world this is", 24


def streamed(base_url: str) -> str:
    with openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0) as client:
        stream = client.completions.create(
            model="gptj-6b", prompt=PROMPT, max_tokens=N, temperature=0, stream=True
        )
        return "".join(chunk.choices[0].text for chunk in stream if chunk.choices)


def test_the_legacy_file_is_served(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="the llama_cpp engine is not installed")
    file = tmp_path / "ggml-gpt4all-j-v1.3-groovy.bin"
    file.write_bytes(GPTJ().pack(Q4_0))
    ids, gap = GPTJ().greedy(GPTJ().encode(PROMPT), N, stored(GPTJ().weights(), Q4_0))
    assert gap > 0.2
    made_at = []
    for _ in range(2):
        with program(tmp_path, LLM_MODEL="gptj-6b", LLM_MODEL_PATH=str(file)) as parlm:
            assert streamed(parlm.base_url) == GPTJ().decode(ids)
        assert "the weights are a GGML file" in "\n".join(parlm.errors)
        made_at.append(file.with_name(f"{file.name}.gguf").stat().st_mtime_ns)
    assert made_at[0] == made_at[1]
