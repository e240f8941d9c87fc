"""The training loop: Muon for the matrices, AdamW for the rest, resumable.

Two processes of one thread each share the work, because on a small and busy machine that is
a good deal faster than one process of two threads: each runs its micro-batches, the gradients
are summed, and each updates the parameters that it owns and sends them to the other.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parlm_tiny.answering import answers
from parlm_tiny.batches import Batch, batches_from
from parlm_tiny.config import ModelConfig, TrainConfig
from parlm_tiny.encoding import Encoder
from parlm_tiny.mixture import SKILLS, held_out
from parlm_tiny.model import TinyLlama
from parlm_tiny.scoring import is_right

WATCH_SEED = 1
"""Seed of the held-out items that are watched while training (the evaluation uses another)."""


def rate_factor(step: int, config: TrainConfig) -> float:
    """The learning rates' factor at a step, from the piecewise linear schedule."""
    for (left, low), (right, high) in itertools.pairwise(config.rate_points):
        if left <= step < right:
            return low + (high - low) * (step - left) / (right - left)
    raise ValueError(f"no rate for step {step}")


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon updates a parameter: the layers' matrices."""
    return parameter.ndim == 2 and "embed" not in name


def owners(model: nn.Module, workers: int) -> list[list[tuple[str, nn.Parameter]]]:
    """Each worker's parameters: matrices in turns, and the rest all with the last worker."""
    owned: list[list[tuple[str, nn.Parameter]]] = [[] for _ in range(workers)]
    turn = 0
    for name, parameter in model.named_parameters():
        if is_matrix(name, parameter):
            owned[turn % workers].append((name, parameter))
            turn += 1
        else:
            owned[-1].append((name, parameter))
    return owned


def optimizers(
    owned: list[tuple[str, nn.Parameter]], config: TrainConfig
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Optimisers of one worker's parameters, each with its peak learning rate."""
    matrices = [parameter for name, parameter in owned if is_matrix(name, parameter)]
    others = [parameter for name, parameter in owned if not is_matrix(name, parameter)]
    made: list[tuple[torch.optim.Optimizer, float]] = []
    if matrices:
        muon = torch.optim.Muon(matrices, weight_decay=config.matrix_weight_decay, momentum=0.95)
        made.append((muon, config.matrix_lr))
    if others:
        adam = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0)
        made.append((adam, config.vector_lr))
    return made


def watch(model: TinyLlama, encoder: Encoder, skill: str, count: int) -> float:
    """Accuracy on a few held-out items of a skill."""
    items = held_out(WATCH_SEED, skill, count)
    made = answers(model, encoder, items)
    right = [is_right(item, text) for item, (text, _) in zip(items, made, strict=True)]
    return round(sum(right) / len(items), 3)


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Add up the workers' gradients, as one message."""
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    dist.all_reduce(flat)
    start = 0
    for parameter in parameters:
        size = parameter.numel()
        parameter.grad = flat[start : start + size].view_as(parameter)
        start += size


def share_parameters(owned: list[tuple[str, nn.Parameter]], owner: int) -> None:
    """Send a worker's parameters to the others, as one message."""
    flat = torch.cat([parameter.detach().flatten() for _, parameter in owned])
    dist.broadcast(flat, owner)
    start = 0
    for _, parameter in owned:
        parameter.data.copy_(flat[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()


class Trainer:
    """One worker of a run; ``folder`` holds the checkpoints and the log."""

    def __init__(
        self,
        encoder: Encoder,
        model_config: ModelConfig,
        config: TrainConfig,
        folder: Path,
        rank: int,
    ) -> None:
        self.encoder, self.config, self.folder, self.rank = encoder, config, folder, rank
        torch.manual_seed(config.seed)
        torch.set_num_threads(1)
        self.model = TinyLlama(model_config, torch.bfloat16)
        self.model.compile_blocks()
        self.parameters = list(self.model.parameters())
        self.owned = owners(self.model, config.workers)
        self.optimizers = optimizers(self.owned[rank], config)
        self.state: dict[str, Any] = {
            "step": 0,
            "chunk": 0,
            "skip": 0,
            "tokens": 0,
            "answer_tokens": 0,
            "wall_seconds": 0.0,
            "cpu_seconds": 0.0,
        }
        self.load()

    @property
    def checkpoint(self) -> Path:
        """Where this worker's state is kept."""
        return self.folder / f"checkpoint-{self.rank}.pt"

    def load(self) -> None:
        """Go on from the checkpoint if there is one."""
        if self.checkpoint.exists():
            saved = torch.load(self.checkpoint, weights_only=False)
            self.model.load_state_dict(saved["model"])
            for (optimizer, _), state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.state = saved["state"]

    def save(self) -> None:
        """Write the checkpoints in one move each, so that none is ever half written."""
        draft = self.checkpoint.with_suffix(".draft")
        states = [optimizer.state_dict() for optimizer, _ in self.optimizers]
        saved = {"model": self.model.state_dict(), "optimizers": states, "state": self.state}
        torch.save(saved, draft)
        dist.barrier()
        draft.replace(self.checkpoint)

    def log(self, **values: Any) -> None:
        """Append a line to the run's log."""
        if self.rank:
            return
        line = json.dumps({"step": self.state["step"], **values})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as out:
            out.write(line + "\n")

    def step(self, batches: list[Batch]) -> float:
        """One optimiser step over all workers' micro-batches; their weighted mean loss."""
        total = float(sum(batch.weight.sum() for batch in batches))
        value = torch.zeros(())
        for batch in batches[self.rank :: self.config.workers]:
            loss = self.model.loss(
                batch.flat, batch.rows, batch.length, batch.at, batch.target, batch.weight / total
            )
            loss.backward()
            value += loss.detach()
        sum_gradients(self.parameters)
        factor = rate_factor(self.state["step"], self.config)
        for optimizer, rate in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
        self.model.zero_grad()
        for owner, owned in enumerate(self.owned):
            share_parameters(owned, owner)
        dist.all_reduce(value)
        self.state["tokens"] += sum(batch.rows * batch.length for batch in batches)
        self.state["answer_tokens"] += sum(len(batch.at) for batch in batches)
        return float(value)

    def run(self) -> None:
        """Train to the end."""
        stream = batches_from(self.encoder, self.config, self.state["chunk"], self.state["skip"])
        mean = 0.0
        while self.state["step"] < self.config.total_steps:
            wall, cpu = time.perf_counter(), time.process_time()
            drawn = [next(stream) for _ in range(self.config.micro_batches)]
            value = self.step([batch for batch, _, _ in drawn])
            mean = value if not mean else 0.95 * mean + 0.05 * value
            self.state["chunk"], self.state["skip"] = drawn[-1][1:]
            self.state["step"] += 1
            self.state["wall_seconds"] += time.perf_counter() - wall
            self.state["cpu_seconds"] += time.process_time() - cpu
            self.report(mean)
        self.save()

    def report(self, loss: float) -> None:
        """Log, save and evaluate when it is time to."""
        step, config = self.state["step"], self.config
        if step % 10 == 0 or step < 4:
            seconds = self.state["wall_seconds"]
            rate = round(self.state["tokens"] / seconds)
            self.log(
                loss=round(loss, 4),
                tokens=self.state["tokens"],
                tokens_per_second=rate,
                wall=round(seconds),
                cpu=round(self.state["cpu_seconds"] * config.workers),
            )
        if step % config.save_every == 0:
            self.save()
        if step % config.evaluate_every == 0:
            self.log(held_out=self.watch_all())

    def watch_all(self) -> dict[str, float]:
        """Accuracy by skill, the skills divided between the workers."""
        self.model.dtype = torch.float32
        mine = list(SKILLS)[self.rank :: self.config.workers]
        scores = {
            skill: watch(self.model, self.encoder, skill, self.config.evaluate_items)
            for skill in mine
        }
        self.model.dtype = torch.bfloat16
        gathered: list[Any] = [None] * self.config.workers
        dist.all_gather_object(gathered, scores)
        return {skill: part[skill] for skill in SKILLS for part in gathered if skill in part}


def train_worker(
    encoder: Encoder, model_config: ModelConfig, config: TrainConfig, folder: Path, rank: int
) -> None:
    """One worker process: meet the others, then train."""
    meeting = f"file://{folder.resolve()}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=config.workers)
    Trainer(encoder, model_config, config, folder, rank).run()
    dist.destroy_process_group()


def finished_model(folder: Path, model_config: ModelConfig) -> TinyLlama:
    """The model of the newest checkpoint."""
    saved = torch.load(folder / "checkpoint-0.pt", weights_only=False)
    model = TinyLlama(model_config)
    model.load_state_dict(saved["model"])
    model.eval()
    return model


def run_counts(folder: Path) -> dict[str, Any]:
    """What a run took: steps, chunks, tokens, wall seconds, CPU seconds of all workers."""
    paths = sorted(folder.glob("checkpoint-*.pt"))
    states = [torch.load(path, weights_only=False)["state"] for path in paths]
    return {
        "steps": states[0]["step"],
        "chunks": states[0]["chunk"] + 1,
        "tokens": states[0]["tokens"],
        "answer_tokens": states[0]["answer_tokens"],
        "wall_seconds": round(states[0]["wall_seconds"]),
        "cpu_seconds": round(sum(state["cpu_seconds"] for state in states)),
    }
