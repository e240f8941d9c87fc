"""Make parlm-tiny from nothing: data, tokenizer, training, export, evaluation, model card.

Run it from the repository's root::

    python models/parlm-tiny/train.py

The run is resumable: its checkpoints and log are in ``--work`` (default ``runs/`` beside this
file, which is not for git). The same seeds give the same data everywhere; the weights may
differ a little between machines, because the order of floating-point sums does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from parlm_tiny.config import ModelConfig, TrainConfig  # noqa: E402
from parlm_tiny.encoding import Encoder, load_tokenizer, train_tokenizer, turns_of  # noqa: E402
from parlm_tiny.mixture import training_chunk  # noqa: E402

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    # Keep freed tensors' memory: returning it to the system costs a tenth of the time.
    "GLIBC_TUNABLES": ":".join(
        (
            "glibc.malloc.hugetlb=1",
            "glibc.malloc.mmap_threshold=4000000000",
            "glibc.malloc.trim_threshold=8000000000",
            "glibc.malloc.top_pad=268435456",
        )
    ),
}
STAGES = ("tokenizer", "train", "export", "evaluate", "card")


def make_tokenizer(path: Path, config: TrainConfig, vocab_size: int) -> None:
    """Train the tokenizer on generated conversations, unless it is already there."""
    if path.exists():
        return
    drawn = training_chunk(config.seed, -1, config.tokenizer_conversations)
    texts = [turn.content for conversation, _ in drawn for turn in turns_of(conversation)]
    train_tokenizer(texts, vocab_size).save(str(path))


def train(work: Path, config: TrainConfig) -> None:
    """Run the workers to their end; if one fails, end the others."""
    (work / "meeting").unlink(missing_ok=True)
    settings = (f"{name}={value}" for name, value in WORKER_ENVIRONMENT.items())
    command = ["env", *settings, sys.executable, __file__, "--work", str(work), "--rank"]
    workers = [subprocess.Popen([*command, str(rank)]) for rank in range(config.workers)]
    try:
        if any(worker.wait() for worker in workers):
            raise SystemExit("a training worker failed")
    finally:
        for worker in workers:
            worker.kill()


def run_worker(work: Path, rank: int) -> None:
    """The body of one worker process."""
    from parlm_tiny.training import train_worker

    encoder = Encoder(load_tokenizer(work / "tokenizer.json"))
    train_worker(encoder, ModelConfig(), TrainConfig(), work, rank)


def export(work: Path) -> None:
    """Write both forms of the weights."""
    from parlm_tiny.export import write_gguf, write_hf
    from parlm_tiny.training import finished_model

    model = finished_model(work, ModelConfig())
    write_hf(model, work / "tokenizer.json", HERE / "hf")
    write_gguf(model, work / "tokenizer.json", HERE / "parlm-tiny-q8_0.gguf")


def evaluate(work: Path) -> None:
    """Check that held-out items are new, score the exported weights, write the figures."""
    from parlm_tiny.evaluation import write_evaluation

    write_evaluation(HERE, work)


def card() -> None:
    """Put the figures into the model card."""
    from parlm_tiny.card import update_card

    update_card(HERE)


def main() -> None:
    """Do everything, or the stages that ``--stages`` names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "runs")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--rank", type=int, help="internal: be this training worker")
    options = parser.parse_args()
    work: Path = options.work
    if options.rank is not None:
        run_worker(work, options.rank)
        return
    work.mkdir(parents=True, exist_ok=True)
    if "tokenizer" in options.stages:
        make_tokenizer(work / "tokenizer.json", TrainConfig(), ModelConfig().vocab_size)
    if "train" in options.stages:
        train(work, TrainConfig())
    if "export" in options.stages:
        export(work)
    if "evaluate" in options.stages:
        evaluate(work)
    if "card" in options.stages:
        card()


if __name__ == "__main__":
    main()
