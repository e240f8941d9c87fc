"""PyTorch checkpoints to safetensors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

import torch
from safetensors.torch import load_file

from engines.checkpoints import convert_checkpoint
from engines.errors import ModelLoadError
from engines.model_files import describe

WEIGHTS = {f"layer.{i}.weight": torch.full((4, 3), float(i), dtype=torch.half) for i in range(5)}


def ignore(_done: int, _total: int) -> None:
    """Progress nobody watches."""


def write_shards(folder: Path, count: int = 3) -> None:
    names = sorted(WEIGHTS)
    index: dict[str, str] = {}
    for number in range(count):
        file = f"pytorch_model-{number + 1:05}-of-{count:05}.bin"
        shard = {name: WEIGHTS[name] for name in names[number::count]}
        torch.save(shard, folder / file)
        index |= dict.fromkeys(shard, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def read(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for file in folder.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


def test_shards_become_shards_with_an_index(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    progress: list[tuple[int, int]] = []
    made = convert_checkpoint(tmp_path, lambda done, total: progress.append((done, total)))
    assert [file.name for file in made] == [
        f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)
    ]
    weights = read(tmp_path)
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in weights.items())
    assert weights["layer.1.weight"].dtype == torch.half
    total = sum(file.stat().st_size for file in tmp_path.glob("*.bin"))
    assert progress[0] == (0, total)
    assert progress[-1] == (total, total)
    assert len(progress) == 4
    assert not any(name.endswith(".partial") for name in files(tmp_path))
    assert describe("tiny", tmp_path).format == "safetensors"  # which reads the index


def test_one_file_becomes_one(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    (tmp_path / "pytorch_model.bin").chmod(0o644)
    convert_checkpoint(tmp_path, ignore)
    assert files(tmp_path) == {"pytorch_model.bin", "model.safetensors"}
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert read(tmp_path).keys() == WEIGHTS.keys()


def test_the_format_of_before_pytorch_1_6(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    convert_checkpoint(tmp_path, ignore)
    assert read(tmp_path).keys() == WEIGHTS.keys()


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6)
    shared = {"a": whole, "b": whole, "part": whole[1:3], "turned": whole.T}
    torch.save(shared, tmp_path / "pytorch_model.bin")
    convert_checkpoint(tmp_path, ignore)
    weights = read(tmp_path)
    assert all(torch.equal(weights[name], tensor) for name, tensor in shared.items())


class Payload:
    """What runs when a pickle is opened without care."""

    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self._witness), 0o700)


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    torch.save({"weight": torch.ones(2), "evil": Payload(witness)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="holds more than tensors"):
        convert_checkpoint(tmp_path, ignore)
    assert files(tmp_path) == {"pytorch_model.bin"}


@pytest.mark.parametrize("content", [[torch.ones(2)], {}, {"epoch": 3}, {"model": {"a": 1}}])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="no checkpoint of a model"):
        convert_checkpoint(tmp_path, ignore)


def test_a_damaged_file_leaves_nothing_behind(tmp_path: Path) -> None:
    write_shards(tmp_path)
    before = files(tmp_path)
    last = tmp_path / "pytorch_model-00003-of-00003.bin"
    last.write_bytes(last.read_bytes()[:-200])
    with pytest.raises(ModelLoadError, match=r"00003-of-00003\.bin is damaged"):
        convert_checkpoint(tmp_path, ignore)
    assert files(tmp_path) == before


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(ModelLoadError, match=r"lacks pytorch_model-00002-of-00003\.bin"):
        convert_checkpoint(tmp_path, ignore)


def test_the_same_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        torch.save(WEIGHTS, tmp_path / f"pytorch_model-0000{number}-of-00002.bin")
    with pytest.raises(ModelLoadError, match=r"layer\.0\.weight is in another file too"):
        convert_checkpoint(tmp_path, ignore)


def test_a_folder_without_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="nothing to convert"):
        convert_checkpoint(tmp_path, ignore)
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    convert_checkpoint(tmp_path, ignore)
    with pytest.raises(ModelLoadError, match="holds safetensors already"):
        convert_checkpoint(tmp_path, ignore)


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    monkeypatch.setattr("engines.checkpoints._free_bytes", lambda _folder: 100)
    with pytest.raises(ModelLoadError, match=r"the disk has 0\.0 GB left"):
        convert_checkpoint(tmp_path, ignore)
    assert files(tmp_path) == {"pytorch_model.bin"}
