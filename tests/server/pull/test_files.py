"""Which files of a repository make a model."""

from __future__ import annotations

import pytest

from server.pull.errors import PullError
from server.pull.files import (
    Checksum,
    RemoteFile,
    quant_of,
    select_gguf,
    select_safetensors,
)


def files(*paths: str) -> list[RemoteFile]:
    return [RemoteFile(path, f"http://h/{path}", 10, Checksum("sha256", path)) for path in paths]


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("vicuna-13b-v1.5.Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "Q4_K_M"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("Phi-3-mini-4k-instruct-fp16.gguf", "F16"),
        ("gemma-3-1b-it-f16.gguf", "F16"),
        ("m-BF16.gguf", "BF16"),
        ("m-IQ4_XS.gguf", "IQ4_XS"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("ggml-tiiuae-falcon-40b-instruct-Q3_K_S.gguf", "Q3_K_S"),
        ("gorilla-7b-hf-v1-q2_K.gguf", "Q2_K"),
        ("model.gguf", None),
        ("q4_0-notes.txt", None),
    ],
)
def test_a_name_says_its_quantisation(name: str, quant: str | None) -> None:
    assert quant_of(name) == quant


REPO = files(
    *("README.md", "m.Q4_K_M.gguf", "m.Q8_0.gguf", "mmproj-m-f16.gguf", "m-imatrix-Q4_0.gguf"),
    *("F16/m-F16-00002-of-00002.gguf", "F16/m-F16-00001-of-00002.gguf"),
)


def names(chosen: object) -> list[str]:
    assert isinstance(chosen, list | tuple)
    return [file.name for file in chosen]


def test_one_quantisation_is_taken() -> None:
    assert names(select_gguf(REPO, None, "r")[1]) == ["m.Q4_K_M.gguf"]
    assert names(select_gguf(REPO, "q8_0", "r")[1]) == ["m.Q8_0.gguf"]


def test_a_split_file_is_taken_whole() -> None:
    quant, chosen = select_gguf(REPO, "FP16", "r")
    assert quant == "F16"
    assert names(chosen) == ["m-F16-00001-of-00002.gguf", "m-F16-00002-of-00002.gguf"]


def test_without_the_usual_one_another_is_taken() -> None:
    assert select_gguf(files("m-Q8_0.gguf", "m-Q2_K.gguf"), None, "r")[0] == "Q8_0"
    assert select_gguf(files("m-Q2_K.gguf"), None, "r")[0] == "Q2_K"


def test_a_quantisation_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(PullError, match=r"--quant Q5_0: org/r has F16, Q4_K_M, Q8_0"):
        select_gguf(REPO, "Q5_0", "org/r")
    with pytest.raises(PullError, match="no GGUF file"):
        select_gguf(files("README.md"), None, "org/r")
    with pytest.raises(PullError, match="several files"):
        select_gguf(files("a-Q4_0.gguf", "b-Q4_0.gguf"), "Q4_0", "org/r")


FOLDER = (
    *("config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json"),
    *("tokenizer.model", "merges.txt", "chat_template.jinja", "LICENSE"),
)
UNWANTED = (
    *("pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json", "modeling_own.py"),
    *("README.md", "consolidated.safetensors", "model.fp16.safetensors", "onnx/model.onnx"),
    *("original/tokenizer.model", ".gitattributes", "image.png", "training_args.bin"),
)


def select(paths: tuple[str, ...], *, pickle: bool = False, code: bool = False) -> set[str]:
    chosen = select_safetensors(files(*paths), "r", may_be_pickle=pickle, may_have_code=code)
    return {file.path for file in chosen}


def test_only_what_is_allowed_is_taken() -> None:
    assert select(FOLDER + UNWANTED) == {*FOLDER}
    assert select(FOLDER + UNWANTED, pickle=True) == {*FOLDER}


def test_code_is_taken_when_it_is_allowed() -> None:
    assert select(FOLDER + UNWANTED, code=True) == {*FOLDER, "modeling_own.py"}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "m.pt", "m.pth", "m.ckpt", "m.pkl"])
def test_pickle_alone_is_refused(name: str) -> None:
    with pytest.raises(PullError, match="pickle only") as caught:
        select(("config.json", name))
    assert name in str(caught.value)


def test_pickle_is_taken_where_the_catalogue_says_so() -> None:
    paths = ("config.json", "pytorch_model.bin", "ice_text.model", "modeling.py", "optimizer.pt")
    chosen = {"config.json", "pytorch_model.bin", "ice_text.model"}
    assert select(paths, pickle=True) == chosen


def test_nothing_to_take_is_said() -> None:
    with pytest.raises(PullError, match="no safetensors"):
        select(("README.md",))
