"""The same tiny GPT-J in llama.cpp, transformers and gpt4all answers what it should.

Greedy answers are compared with a forward pass in numpy. The models are random ones whose
likeliest tokens stand out, because llama.cpp rounds activations to 8 bits beside quantised
weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.engines.gptj_files import F16, F32, GPTJ, Q4_0, Q4_1, bytes_vocabulary, stored

PROMPT, N = "hello world this is", 24
KINDS = pytest.mark.parametrize("kind", [F32, F16, Q4_0, Q4_1], ids=["f32", "f16", "q4_0", "q4_1"])
SMALL = GPTJ()
LARGE = GPTJ(vocabulary=bytes_vocabulary(), seed=7)  # of the real size, which gpt4all wants


def by_numpy(model: GPTJ, kind: int) -> str:
    ids, gap = model.greedy(model.encode(PROMPT), N, stored(model.weights(), kind))
    assert gap > 0.1
    return model.decode(ids)


def by_llama_cpp(model: GPTJ, source: Path) -> str:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    from engines.llama_cpp.core import LlamaCppCore, create_core
    from engines.types import SamplingParams
    from tests.engines.core_driving import answer, prompt

    core = create_core(model_path=str(source), n_threads=1, n_slots=1)
    try:
        assert isinstance(core, LlamaCppCore)
        assert list(core.tokenize(prompt(PROMPT))) == model.encode(PROMPT)
        return answer(core, PROMPT, SamplingParams(temperature=0.0, max_tokens=N))
    finally:
        core.close()


@pytest.mark.parametrize("version", [0, 2])
@KINDS
def test_llama_cpp(kind: int, version: int, tmp_path: Path) -> None:
    source = tmp_path / "ggml-gpt4all-j.bin"
    source.write_bytes(SMALL.pack(kind, version))
    assert by_llama_cpp(SMALL, source) == by_numpy(SMALL, kind)


@KINDS
def test_transformers(kind: int) -> None:
    """Its GPTJForCausalLM on the same numbers: those that a file of each kind holds."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.GPTJConfig(
        vocab_size=len(SMALL.vocabulary),
        n_positions=SMALL.n_ctx,
        n_embd=SMALL.n_embd,
        n_layer=SMALL.n_layer,
        n_head=SMALL.n_head,
        rotary_dim=SMALL.n_rot,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = transformers.GPTJForCausalLM(config).eval()
    weights = {k: torch.tensor(v) for k, v in stored(SMALL.weights(), kind).items()}
    model.load_state_dict(weights, strict=True)
    prompt = torch.tensor([SMALL.encode(PROMPT)])
    ids = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=N
    )
    assert SMALL.decode(ids[0, prompt.shape[1] :].tolist()) == by_numpy(SMALL, kind)


GPT4ALL = """
import json, sys
from pathlib import Path
from gpt4all import GPT4All

file = Path(sys.argv[1])
model = GPT4All(file.name, model_path=str(file.parent), allow_download=False, n_threads=1)
print(json.dumps(model.generate(
    sys.argv[2], max_tokens=int(sys.argv[3]),
    temp=0.0, top_k=1, top_p=1.0, repeat_penalty=1.0, repeat_last_n=0,
)))
"""


def by_gpt4all(source: Path) -> str:
    """The answer of the program that the format was made for; it may crash, so not in here."""
    command = [sys.executable, "-c", GPT4ALL, str(source), PROMPT, str(N)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    answer: str = json.loads(done.stdout.splitlines()[-1])
    return answer


def has_gpt4all() -> bool:
    try:
        return metadata.version("gpt4all") == "1.0.8"
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not has_gpt4all(), reason="gpt4all 1.0.8, the last to run GPT-J, is absent")
@KINDS
def test_gpt4all(kind: int, tmp_path: Path) -> None:
    source = tmp_path / "ggml-gpt4all-j.bin"
    source.write_bytes(LARGE.pack(kind))
    assert by_gpt4all(source) == by_llama_cpp(LARGE, source) == by_numpy(LARGE, kind)
