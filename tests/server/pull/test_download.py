"""Downloads through the real client, from a hub that misbehaves as it is told."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from server.catalog import CatalogEntry
from server.model_specs import partial_folder
from server.pull.download import download
from server.pull.errors import PullError
from server.pull.files import RemoteFile
from server.pull.hub import Hub
from server.pull.plan import Wish, make_plan
from server.pull.store import Source, Store
from tests.server.pull.fake_hub import COMMIT, FakeHub, Repo, fake_hub
from tests.serving import clean_environment, wait_until

NAME = "org/tiny"
MIB = 2**20
STEP = 10 * MIB  # of huggingface_hub: what a broken connection may lose
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
LARGE = WEIGHTS * 12
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": WEIGHTS}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def get(hub: FakeHub, models: Path) -> Callable[..., Path]:
    hub.repos[NAME] = Repo(dict(FILES))

    def get(token: str | None = None, entry: CatalogEntry | None = None, **wish: object) -> Path:
        name = NAME if entry is None else entry.name
        client = Hub(hub.url, token)
        plan = make_plan(Wish(name=name, **wish), entry, client)  # type: ignore[arg-type]
        return download(plan, client, Store(models, name), lambda file, done: None)

    return get


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".parlm.json"}


def test_a_model_gets_its_place(get: Callable[..., Path], models: Path) -> None:
    folder = get()
    assert folder == models / NAME
    assert contents(folder) == FILES
    assert Store(models, NAME).existing() == Source(NAME, COMMIT, "safetensors")
    assert not partial_folder(models, NAME).exists()


def test_what_is_told_of_the_progress(hub: FakeHub, models: Path) -> None:
    hub.repos[NAME] = Repo(dict(FILES))
    client, told = Hub(hub.url, None), list[tuple[str, int]]()

    def report(file: RemoteFile, done: int) -> None:
        told.append((file.name, done))

    download(make_plan(Wish(NAME), None, client), client, Store(models, NAME), report)
    assert ("model.safetensors", 0) in told
    assert ("model.safetensors", len(WEIGHTS)) in told
    assert [done for _, done in told if done > len(WEIGHTS)] == []


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_connection_that_breaks_is_taken_up_again(
    get: Callable[..., Path], hub: FakeHub, is_reset: bool
) -> None:
    hub.repos[NAME].files["model.safetensors"] = LARGE
    hub.drops["model.safetensors"] = [11 * MIB]
    hub.resets_connections = is_reset
    assert contents(get())["model.safetensors"] == LARGE
    assert [r.range for r in hub.transfers("model.safetensors")] == [None, f"bytes={STEP}-"]


def test_a_connection_that_is_reset_at_once_gives_up(
    get: Callable[..., Path], hub: FakeHub
) -> None:
    hub.drops["model.safetensors"] = [1000]
    hub.resets_connections = True
    with pytest.raises(PullError, match="goes on where it stopped"):
        get()


def interrupt(get: Callable[..., Path], hub: FakeHub, models: Path, at: int) -> Path:
    """Leave `at` bytes behind, as a program that was ended in the middle."""
    hub.damaged.add("model.safetensors")
    with pytest.raises(PullError):
        get()
    hub.damaged.clear()
    hub.requests.clear()
    digest = hashlib.sha256(WEIGHTS).hexdigest()[:16]
    part = partial_folder(models, NAME) / f"model.safetensors.{digest}.part"
    part.write_bytes(WEIGHTS[:at])
    return part


def test_a_later_run_goes_on_where_the_last_one_stopped(
    get: Callable[..., Path], hub: FakeHub, models: Path
) -> None:
    interrupt(get, hub, models, 700_000)
    assert contents(get()) == FILES
    assert [r.range for r in hub.transfers("model.safetensors")] == ["bytes=700000-"]
    assert hub.transfers("config.json") == []


@pytest.mark.parametrize("at", [len(WEIGHTS), len(WEIGHTS) + 5])
def test_a_part_of_the_full_size_or_more(
    get: Callable[..., Path], hub: FakeHub, models: Path, at: int
) -> None:
    interrupt(get, hub, models, 0).write_bytes((WEIGHTS + b"12345")[:at])
    assert contents(get()) == FILES


def test_a_server_that_ignores_ranges(get: Callable[..., Path], hub: FakeHub, models: Path) -> None:
    interrupt(get, hub, models, 700_000)
    hub.ignores_ranges = True
    assert contents(get()) == FILES


def test_a_program_that_is_killed_loses_little(hub: FakeHub, models: Path) -> None:
    hub.repos[NAME] = Repo({**FILES, "model.safetensors": LARGE})
    hub.drops["model.safetensors"], hub.hold = [11 * MIB], threading.Event()
    command = [sys.executable, "-m", "server", "pull", NAME, "--format", "safetensors"]
    environment = clean_environment(HF_ENDPOINT=hub.url, MODELS_DIR=str(models))
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: grown(partial_folder(models, NAME)), 60, "the first step")
        child.kill()
    (part,) = grown(partial_folder(models, NAME))
    hub.hold.set()
    assert not (models / NAME).exists()
    left = part.stat().st_size
    hub.requests.clear()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "is complete" in done.stdout
    assert contents(models / NAME)["model.safetensors"] == LARGE
    assert [r.range for r in hub.transfers("model.safetensors")] == [f"bytes={left}-"]


def grown(folder: Path) -> list[Path]:
    """The part that has its first step on the disk, less what Python still holds."""
    parts = folder.glob("model.safetensors.*.part") if folder.is_dir() else ()
    return [part for part in parts if part.stat().st_size >= STEP - MIB]


def test_a_half_model_is_never_found(get: Callable[..., Path], hub: FakeHub, models: Path) -> None:
    interrupt(get, hub, models, 700_000)
    assert not (models / NAME).exists()
    assert Store(models, NAME).existing() is None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_wrong_checksum_is_refused_and_deleted(
    get: Callable[..., Path], hub: FakeHub, models: Path, name: str
) -> None:
    hub.damaged.add(name)
    with pytest.raises(PullError, match=name) as caught:
        get()
    assert "run this again" in str(caught.value)
    assert not (models / NAME).exists()
    assert [p.name for p in partial_folder(models, NAME).iterdir() if name in p.name] == []
    hub.damaged.clear()
    assert contents(get()) == FILES


def test_a_damaged_part_is_found_out(get: Callable[..., Path], hub: FakeHub, models: Path) -> None:
    interrupt(get, hub, models, 0).write_bytes(bytes(700_000))
    with pytest.raises(PullError, match="sha256"):
        get()
    assert contents(get()) == FILES


def test_what_is_left_of_another_download_does_not_stay(
    get: Callable[..., Path], hub: FakeHub, models: Path
) -> None:
    part = interrupt(get, hub, models, 700_000)
    part.rename(part.with_name("old.safetensors"))
    assert contents(get()) == FILES


def test_a_new_version_does_not_take_up_parts_of_the_old(
    get: Callable[..., Path], hub: FakeHub, models: Path
) -> None:
    interrupt(get, hub, models, 700_000)
    hub.repos[NAME].files["model.safetensors"] = WEIGHTS[::-1]
    assert contents(get())["model.safetensors"] == WEIGHTS[::-1]
    assert [r.range for r in hub.transfers("model.safetensors")] == [None]


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_says_what_to_do(get: Callable[..., Path], hub: FakeHub, status: int) -> None:
    hub.repos[NAME].gate = status
    with pytest.raises(PullError, match="is gated") as caught:
        get()
    for word in ("HF_TOKEN", f"{hub.url}/{NAME}", f"{hub.url}/settings/tokens"):
        assert word in str(caught.value)
    with pytest.raises(PullError, match="the account of HF_TOKEN has no access"):
        get(token="hf_wrong")
    assert contents(get(token="hf_right")) == FILES


def test_the_token_goes_to_the_hub_only(get: Callable[..., Path], hub: FakeHub) -> None:
    with fake_hub() as other:
        other.plain = {f"/{name}": content for name, content in FILES.items()}
        hub.elsewhere = other.url
        assert contents(get(token="hf_right")) == FILES
    assert {request.authorization for request in hub.requests} == {"Bearer hf_right"}
    assert other.requests != []
    assert {request.authorization for request in other.requests} == {None}


def test_no_token_is_sent_that_was_not_set(
    get: Callable[..., Path], hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_machine")
    get()
    assert {request.authorization for request in hub.requests} == {None}


def test_what_the_hub_does_not_have(get: Callable[..., Path], hub: FakeHub) -> None:
    with pytest.raises(PullError, match="no such revision"):
        get(revision="v9")
    del hub.repos[NAME]
    with pytest.raises(PullError, match="is not at http"):
        get()


def test_a_revision_is_taken(get: Callable[..., Path], hub: FakeHub) -> None:
    hub.repos[NAME].revisions = ("main", "v1")
    get(revision="v1")
    assert any(r.path.endswith("/revision/v1") for r in hub.requests)
    assert all(f"/resolve/{COMMIT}/" in r.path for r in hub.transfers("model.safetensors"))


def test_a_hub_that_is_not_there(models: Path) -> None:
    with pytest.raises(PullError, match=r"cannot be reached.*HF_ENDPOINT"):
        make_plan(Wish(NAME), None, Hub("http://127.0.0.1:9", None))


@pytest.mark.parametrize("name", ["vicuna", "a/b/c", "../up", "a/..", "a b/c"])
def test_a_name_that_is_none(hub: FakeHub, name: str) -> None:
    with pytest.raises(PullError, match="parlm models --catalog"):
        make_plan(Wish(name), None, Hub(hub.url, None))
    assert hub.requests == []


def test_a_disk_that_is_too_small(get: Callable[..., Path], hub: FakeHub) -> None:
    hub.sizes["model.safetensors"] = 10**16
    with pytest.raises(PullError, match="MODELS_DIR"):
        get()
    assert hub.transfers("model.safetensors") == []


def test_pickle_is_refused_before_anything_arrives(
    get: Callable[..., Path], hub: FakeHub, models: Path
) -> None:
    hub.repos[NAME] = Repo({"config.json": b"{}", "pytorch_model.bin": b"PK"})
    with pytest.raises(PullError, match="pickle only"):
        get()
    assert hub.transfers("pytorch_model.bin") + hub.transfers("config.json") == []
    assert not models.exists()


def test_two_programs_do_not_write_the_same_files(get: Callable[..., Path], models: Path) -> None:
    partial = partial_folder(models, NAME)
    partial.mkdir(parents=True)
    with (
        FileLock(partial.with_name("tiny.lock")),
        pytest.raises(PullError, match="another program"),
    ):
        get()


def entry(**values: object) -> CatalogEntry:
    given: dict[str, object] = {
        **{"name": "known", "licence": "MIT", "architecture": "llama"},
        **{"billions": 1.0, "context_length": 10, "repo": NAME},
    }
    return CatalogEntry(**{**given, **values})


GGUFS = {"m-Q4_K_M.gguf": b"four", "m-Q8_0.gguf": b"eight"}


def test_a_known_model_comes_as_what_runs_best(get: Callable[..., Path], hub: FakeHub) -> None:
    hub.repos["org/tiny-GGUF"] = Repo(dict(GGUFS))
    known = entry(gguf="org/tiny-GGUF")
    assert contents(get(entry=known, prefers_gguf=True)) == {"m-Q4_K_M.gguf": b"four"}


def test_a_format_or_a_quantisation_may_be_asked_for(
    get: Callable[..., Path], hub: FakeHub
) -> None:
    hub.repos["org/tiny-GGUF"] = Repo(dict(GGUFS))
    known = entry(gguf="org/tiny-GGUF")
    assert contents(get(entry=known, format="safetensors")) == FILES
    other = entry(name="other", gguf="org/tiny-GGUF")
    assert contents(get(entry=other, quant="Q8_0", prefers_gguf=False)) == {"m-Q8_0.gguf": b"eight"}


def test_where_the_authors_have_pickle_only_the_gguf_is_taken(
    get: Callable[..., Path], hub: FakeHub
) -> None:
    hub.repos[NAME] = Repo({"config.json": b"{}", "pytorch_model.bin": b"PK"})
    hub.repos["org/tiny-GGUF"] = Repo(dict(GGUFS))
    known = entry(gguf="org/tiny-GGUF")
    assert contents(get(entry=known, prefers_gguf=False)) == {"m-Q4_K_M.gguf": b"four"}
    with pytest.raises(PullError, match="--quant Q4_K_M"):
        get(entry=entry(name="other", gguf="org/tiny-GGUF"), format="safetensors")


def test_pickle_is_taken_where_the_catalogue_allows_it(
    get: Callable[..., Path], hub: FakeHub
) -> None:
    hub.repos[NAME] = Repo({"config.json": b"{}", "pytorch_model.bin": b"PK"})
    assert "pytorch_model.bin" in contents(get(entry=entry(pickle=True)))


def test_a_service_has_no_weights(get: Callable[..., Path]) -> None:
    with pytest.raises(PullError, match="no weights"):
        get(entry=entry(repo=None))


def test_no_gguf_is_known(get: Callable[..., Path]) -> None:
    with pytest.raises(PullError, match="no GGUF files of known are known"):
        get(entry=entry(), quant="Q4_K_M")
    with pytest.raises(PullError, match="GGUF only"):
        get(entry=entry(repo=None, gguf="org/x"), format="safetensors")


def file_entry(hub: FakeHub, content: bytes = WEIGHTS) -> CatalogEntry:
    hub.plain["/models/old.bin"] = content
    return entry(
        repo=None,
        url=f"{hub.url}/models/old.bin",
        md5=hashlib.md5(content).hexdigest(),
        size=len(content),
        quant="Q4_0_2023",
    )


def test_a_file_at_an_address_is_resumed_and_checked(
    get: Callable[..., Path], hub: FakeHub
) -> None:
    known = file_entry(hub, LARGE)
    hub.drops["/models/old.bin"] = [11 * MIB]
    folder = get(token="hf_right", entry=known)
    assert contents(folder) == {"old.bin": LARGE}
    assert [(r.range, r.authorization) for r in hub.requests] == [
        (None, None),
        (f"bytes={STEP}-", None),
    ]
    assert json.loads((folder / ".parlm.json").read_text())["quant"] == "Q4_0_2023"


def test_a_wrong_file_at_an_address(get: Callable[..., Path], hub: FakeHub, models: Path) -> None:
    known = file_entry(hub)
    hub.plain["/models/old.bin"] = WEIGHTS[::-1]
    with pytest.raises(PullError, match="md5"):
        get(entry=known)
    del hub.plain["/models/old.bin"]
    with pytest.raises(PullError, match="404"):
        get(entry=known)
    with pytest.raises(PullError, match="one file"):
        get(entry=known, quant="Q4_K_M")
    assert not (models / known.name).exists()


def test_a_model_of_the_users_own_is_not_touched(models: Path) -> None:
    (models / NAME).mkdir(parents=True)
    with pytest.raises(PullError, match="not downloaded by parlm"):
        Store(models, NAME).existing()
    (models / "x.gguf").touch()
    with pytest.raises(PullError, match=r"x\.gguf is there already"):
        Store(models, "x").existing()
