from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.errors import ModelLoadError
from engines.model_files import describe
from engines.types import ModelDescription
from tests.engines.gguf_files import GGUF
from tests.engines.gptj_files import GPTJ, Q4_0

GOOD = GGUF()


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def safetensors(header: dict[str, Any] | bytes | None = None, data: bytes = bytes(8)) -> bytes:
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    content = {"__metadata__": {"format": "pt"}, "w": tensor} if header is None else header
    packed = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(packed)) + packed + data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model as Hugging Face ships them."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_json(
        folder / "config.json",
        {"model_type": "llama", "max_position_embeddings": 2048, "eos_token_id": 2},
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": {"content": "<s>"},
            "eos_token": "</s>",
            "chat_template": "{{ messages }}",
            "added_tokens_decoder": {
                "0": {"content": "<s>", "special": True},
                "2": {"content": "</s>", "special": True},
                "9": {"content": "<tool>", "special": False},
            },
        },
    )
    (folder / "model.safetensors").write_bytes(safetensors())
    return folder


def refusal(path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        describe("m", path)
    return str(caught.value)


def test_describes_a_gguf_file(tmp_path: Path) -> None:
    path = GOOD.write(tmp_path / "m.gguf")
    assert describe("m", path) == ModelDescription(
        name="m",
        path=str(path),
        format="gguf",
        architecture="llama",
        vocab_size=5,
        context_length=512,
        chat_template="{{ messages }}",
        bos_token="<s>",
        eos_token="</s>",
        special_tokens=("<s>", "</s>", "<|end|>"),
        size_bytes=path.stat().st_size,
        parameters=128,
    )


def test_describes_a_gguf_file_that_tells_little(tmp_path: Path) -> None:
    path = replace(GOOD, metadata={}).write(tmp_path / "m.gguf")
    description = describe("m", path)
    assert (description.context_length, description.bos_token) == (0, None)
    assert description.special_tokens == ()


@pytest.mark.parametrize(
    "config",
    [{"vocab_size": 7}, {"padded_vocab_size": 7}, {"text_config": {"vocab_size": 7}}],
)
def test_the_size_of_the_vocabulary(folder: Path, config: dict[str, object]) -> None:
    assert describe("m", folder).vocab_size == 0
    write_json(folder / "config.json", {"model_type": "chatglm", **config})
    assert describe("m", folder).vocab_size == 7


def test_describes_a_hugging_face_folder(folder: Path) -> None:
    assert describe("m", folder) == ModelDescription(
        name="m",
        path=str(folder),
        format="safetensors",
        architecture="llama",
        context_length=2048,
        chat_template="{{ messages }}",
        bos_token="<s>",
        eos_token="</s>",
        special_tokens=("<s>", "</s>"),
        size_bytes=(folder / "model.safetensors").stat().st_size,
        parameters=2,
    )


def test_a_token_id_of_thousands_of_digits_is_passed_over(folder: Path) -> None:
    decoder = {"9" * 5000: {"content": "<x>", "special": True}, "7": {"content": "<y>"}}
    write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": decoder})
    assert describe("m", folder).special_tokens == ()


def test_a_template_file_wins_over_the_tokenizers(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("from the file")
    assert describe("m", folder).chat_template == "from the file"


def test_of_several_templates_the_default_is_taken(folder: Path) -> None:
    templates = [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]
    write_json(folder / "tokenizer_config.json", {"chat_template": templates})
    assert describe("m", folder).chat_template == "yes"


def test_tokens_are_found_by_id_and_in_the_fast_tokenizers_file(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"model_max_length": 10**30})
    write_json(folder / "config.json", {"model_type": "qwen2", "bos_token_id": None})
    write_json(folder / "generation_config.json", {"eos_token_id": [7, 8]})
    added = [{"id": 7, "content": "<|end|>", "special": True}, {"id": 8, "content": "<x>"}]
    write_json(folder / "tokenizer.json", {"added_tokens": added})
    description = describe("m", folder)
    assert (description.bos_token, description.eos_token) == (None, "<|end|>")
    assert description.special_tokens == ("<|end|>",)
    assert description.context_length == 0


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"n_positions": 1024}, 1024),
        ({"seq_length": 8192}, 8192),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"max_position_embeddings": "many"}, 0),
        ({"max_position_embeddings": True}, 0),
        ({"max_position_embeddings": -1}, 0),
    ],
)
def test_the_context_length_has_many_names(
    folder: Path, config: dict[str, Any], expected: int
) -> None:
    write_json(folder / "config.json", config)
    assert describe("m", folder).context_length == expected


def test_a_folder_with_one_gguf_stands_for_it(tmp_path: Path) -> None:
    path = GOOD.write(tmp_path / "m.gguf")
    GOOD.write(tmp_path / "mmproj-m.gguf")
    (tmp_path / "README.md").touch()
    assert describe("m", tmp_path).path == str(path)


def test_several_gguf_files_are_named(tmp_path: Path) -> None:
    for name in ("q4.gguf", "q8.gguf"):
        GOOD.write(tmp_path / name)
    message = refusal(tmp_path)
    assert "q4.gguf, q8.gguf" in message
    assert "LLM_MODEL_PATH" in message


@pytest.mark.parametrize("given", ["", "m-00001-of-00003.gguf", "m-00003-of-00003.gguf"])
def test_a_split_model_is_its_first_part(tmp_path: Path, given: str) -> None:
    parts = [GOOD.write(tmp_path / f"m-0000{n}-of-00003.gguf") for n in (1, 2, 3)]
    description = describe("m", tmp_path / given)
    assert description.path == str(parts[0])
    assert description.size_bytes == 3 * parts[0].stat().st_size


def test_a_split_model_must_be_whole(tmp_path: Path) -> None:
    for n in (1, 3):
        GOOD.write(tmp_path / f"m-0000{n}-of-00003.gguf")
    assert "m-00002-of-00003.gguf" in refusal(tmp_path)
    (tmp_path / "m-00002-of-00003.gguf").write_bytes(GOOD.pack()[:-1])
    assert "m-00002-of-00003.gguf is truncated" in refusal(tmp_path)


def test_a_token_id_outside_the_vocabulary_is_damage(tmp_path: Path) -> None:
    metadata = dict(GOOD.metadata) | {"tokenizer.ggml.eos_token_id": 99}
    path = replace(GOOD, metadata=metadata).write(tmp_path / "m.gguf")
    assert "eos_token_id is 99" in refusal(path)


def test_names_the_setting_when_nothing_is_there(tmp_path: Path) -> None:
    assert "LLM_MODEL_PATH" in refusal(tmp_path / "nowhere")
    assert "no files" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "weights.pth"])
def test_refuses_pickles(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\3\4 a zipped pickle")
    (tmp_path / "config.json").write_text("{}")
    for path in (tmp_path, tmp_path / name):
        message = refusal(path)
        assert name in message
        assert "safetensors or GGUF" in message


@pytest.mark.parametrize("magic", [0x67676D6C, 0x67676D66, 0x67676A74])
def test_knows_the_files_of_before_gguf(tmp_path: Path, magic: int) -> None:
    path = tmp_path / "ggml-model.bin"
    path.write_bytes(struct.pack("<I", magic) + bytes(100))
    for place in (path, tmp_path):
        assert "before August 2023" in refusal(place)


def test_describes_the_legacy_file_of_a_gptj(tmp_path: Path) -> None:
    path = tmp_path / "ggml-gpt4all-j-v1.3-groovy.bin"
    path.write_bytes(GPTJ().pack(Q4_0))
    for place in (path, tmp_path):
        assert describe("gptj-6b", place) == ModelDescription(
            name="gptj-6b",
            path=str(path),
            format="ggml",
            architecture="gptj",
            context_length=256,
            bos_token="<|endoftext|>",
            eos_token="<|endoftext|>",
            special_tokens=("<|endoftext|>",),
            size_bytes=path.stat().st_size,
        )


def test_a_damaged_legacy_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ggml-gpt4all-j-v1.3-groovy.bin"
    path.write_bytes(GPTJ().pack(Q4_0)[:-1])
    for place in (path, tmp_path):
        assert f"{path} is truncated" in refusal(place)


def test_what_was_made_of_a_legacy_file_does_not_stand_for_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "gptj.bin"
    path.write_bytes(GPTJ().pack(Q4_0))
    GOOD.write(tmp_path / "gptj.bin.gguf")
    assert describe("m", tmp_path).path == str(path)
    GOOD.write(tmp_path / "another.gguf")
    assert describe("m", tmp_path).path == str(tmp_path / "another.gguf")


def test_a_folder_with_several_legacy_files_is_no_choice(tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(GPTJ().pack(Q4_0))
    assert "several GGML files (a.bin, b.bin)" in refusal(tmp_path)


def test_refuses_other_files(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello there")
    assert "not a GGUF file" in refusal(tmp_path / "notes.txt")
    assert str(folder) in refusal(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    assert "no weights" in refusal(folder)


def test_refuses_a_folder_without_its_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "config.json is missing" in refusal(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a": NaN' + b"}" * 2]
)
def test_refuses_json_that_is_none(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    assert "config.json" in refusal(folder)


def test_weights_that_an_index_names_must_be_there(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    write_json(index, {"weight_map": {"w": "model.safetensors", "v": "more.safetensors"}})
    assert "more.safetensors is missing" in refusal(folder)
    write_json(index, {"weight_map": {"w": "../secret.safetensors"}})
    assert "outside its folder" in refusal(folder)
    write_json(index, {"weight_map": 3})
    assert "names no weight files" in refusal(folder)


def test_numbered_weights_without_an_index_must_be_whole(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for number in (1, 3):
        (folder / f"model-0000{number}-of-00003.safetensors").write_bytes(safetensors())
    assert "model-00002-of-00003.safetensors is missing" in refusal(folder)
    (folder / "model-00002-of-00003.safetensors").write_bytes(safetensors())
    assert describe("m", folder).parameters == 6


@pytest.mark.parametrize(
    ("tensors", "parameters"),
    [
        ({"a.weight": ("F16", [2, 3]), "ids": ("I64", [100])}, 6),
        ({"a.qweight": ("I32", [2, 3]), "a.scales": ("F16", [2])}, 0),
        ({"a.weight": ("F16", [-2, 3])}, 0),
    ],
)
def test_counts_the_parameters_unless_they_are_packed(
    folder: Path, tensors: dict[str, tuple[str, list[int]]], parameters: int
) -> None:
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 8]}
        for name, (dtype, shape) in tensors.items()
    }
    (folder / "model.safetensors").write_bytes(safetensors(header))
    assert describe("m", folder).parameters == parameters


def test_tells_the_first_chatglm_from_the_later_ones(folder: Path) -> None:
    write_json(folder / "config.json", {"model_type": "chatglm", "padded_vocab_size": 65024})
    assert describe("m", folder).variant == ""
    write_json(folder / "config.json", {"model_type": "chatglm", "position_encoding_2d": True})
    assert describe("m", folder).variant == "v1"


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_tells_that_a_folder_has_code_of_its_own(folder: Path, file: str) -> None:
    assert not describe("m", folder).has_remote_code
    content = json.loads((folder / file).read_text())
    write_json(folder / file, content | {"auto_map": {"AutoModel": "modeling_x.XModel"}})
    assert describe("m", folder).has_remote_code


KEYS = (
    *(
        "model_type",
        "max_position_embeddings",
        "vocab_size",
        "text_config",
        "bos_token",
        "eos_token_id",
    ),
    *("chat_template", "added_tokens_decoder", "added_tokens", "content", "id", "special"),
    *("name", "template", "model_max_length", "weight_map", "default", "1"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(KEYS) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=6,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(contents=st.lists(JSON, min_size=5, max_size=5))
def test_any_json_is_read_or_refused(folder: Path, contents: list[Any]) -> None:
    names = ("config", "tokenizer_config", "generation_config", "tokenizer")
    for name, content in zip((*names, "model.safetensors.index"), contents, strict=True):
        write_json(folder / f"{name}.json", content if isinstance(content, dict) else {})
    if contents[4] is None:
        (folder / "model.safetensors.index.json").unlink()
    try:
        describe("m", folder)
    except ModelLoadError as error:
        assert str(folder) in str(error)


BAD_SAFETENSORS = {
    "empty": (b"", "not a safetensors file"),
    "short": (b"1234", "not a safetensors file"),
    "a header of 2^62 bytes": (struct.pack("<Q", 2**62), "not a safetensors file"),
    "a cut header": (safetensors()[:20], "truncated"),
    "cut data": (safetensors()[:-1], "truncated: the header promises"),
    "no JSON": (safetensors(b"{{{"), "damaged header"),
    "a list": (safetensors(b"[1]"), "damaged header"),
    "deep JSON": (safetensors(b"[" * 100_000), "damaged header"),
    "a name twice": (
        safetensors(b'{"w": {"data_offsets": [0, 8]}, "w": {"data_offsets": [0, 8]}}'),
        "damaged header",
    ),
    "no offsets": (safetensors({"w": {"shape": [2]}}), "damaged at tensor 'w'"),
    "offsets backwards": (safetensors({"w": {"data_offsets": [8, 0]}}), "damaged at tensor"),
    "a negative offset": (safetensors({"w": {"data_offsets": [-8, 0]}}), "damaged at tensor"),
    "offsets outside": (safetensors({"w": {"data_offsets": [0, 2**40]}}), "truncated"),
}


@pytest.mark.parametrize("kind", BAD_SAFETENSORS)
def test_refuses_damaged_safetensors(folder: Path, kind: str) -> None:
    content, expected = BAD_SAFETENSORS[kind]
    (folder / "model.safetensors").write_bytes(content)
    message = refusal(folder)
    assert expected in message
    assert "model.safetensors" in message
