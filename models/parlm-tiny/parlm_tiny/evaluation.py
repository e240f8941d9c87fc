"""Held-out accuracy of the exported weights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from parlm_tiny.answering import answers, prompt_of
from parlm_tiny.config import ModelConfig, TrainConfig
from parlm_tiny.encoding import END_ID, Encoder, load_tokenizer
from parlm_tiny.export import read_gguf, read_hf, write_json
from parlm_tiny.items import Item
from parlm_tiny.mixture import MIXED_READING, SKILLS, VARIED_TOOLS, held_out, training_chunk
from parlm_tiny.scoring import is_right
from parlm_tiny.skills import sql
from parlm_tiny.training import run_counts

EVALUATION_SEED = 3
ITEMS_PER_SKILL = 250
MACHINE = "2 cores of an AMD EPYC (Zen 4), no GPU"
CLAIM_AT = 0.9
"""A skill is claimed where its accuracy is at least this."""

HARDER = (MIXED_READING, VARIED_TOOLS)
"""Harder forms of two skills, measured so that the card can say what fails."""

Answer = tuple[str, bool]
Answerer = Callable[[list[Item]], list[Answer]]


def held_out_items(count: int = ITEMS_PER_SKILL) -> dict[str, list[Item]]:
    """The evaluation's items by skill."""
    return {skill: held_out(EVALUATION_SEED, skill, count) for skill in SKILLS}


def harder_items() -> dict[str, list[Item]]:
    """The items of the harder forms."""
    return {name: held_out(EVALUATION_SEED, name, ITEMS_PER_SKILL) for name in HARDER}


def check_disjoint(items: dict[str, list[Item]], config: TrainConfig, chunks: int) -> int:
    """Fail if a held-out item is in the training data; the number of training items seen."""
    wanted = {item.key() for group in items.values() for item in group}
    seen = 0
    for chunk in range(-1, chunks):
        size = config.tokenizer_conversations if chunk < 0 else config.chunk_conversations
        for _, made in training_chunk(config.seed, chunk, size):
            seen += len(made)
            both = [item for item in made if item.key() in wanted]
            if both:
                raise SystemExit(f"held-out item in the training data: {both[0].key()}")
    return seen


def torch_answerer(folder: Path, encoder: Encoder, config: ModelConfig) -> Answerer:
    """Answers of the safetensors weights."""
    model = read_hf(folder, config)
    return lambda items: answers(model, encoder, items)


def dequantised_answerer(path: Path, encoder: Encoder, config: ModelConfig) -> Answerer:
    """Answers of the GGUF's weights, dequantised, computed in torch."""
    model = read_gguf(path, config)
    return lambda items: answers(model, encoder, items)


def llama_cpp_answerer(path: Path, encoder: Encoder) -> Answerer | None:
    """Answers of llama.cpp, None where its bindings are not installed."""
    try:
        from llama_cpp import Llama
    except ImportError:
        return None
    engine = Llama(str(path), n_ctx=1024, verbose=False, n_threads=1)

    def answer(item: Item) -> Answer:
        ids: list[int] = []
        for token in engine.generate(encoder.prompt(prompt_of(item)), temp=0.0):
            if token == END_ID or len(ids) == 160:
                return encoder.decode(ids), token == END_ID
            ids.append(token)
        return encoder.decode(ids), False

    return lambda items: [answer(item) for item in items]


def score(items: list[Item], made: list[Answer]) -> dict[str, float]:
    """Accuracy and the share of answers that ended by themselves."""
    right = sum(is_right(item, text) for item, (text, _) in zip(items, made, strict=True))
    exact = sum(item.answer == text for item, (text, _) in zip(items, made, strict=True))
    count = len(items)
    return {
        "accuracy": round(right / count, 4),
        "exact_string": round(exact / count, 4),
        "ended": round(sum(ended for _, ended in made) / count, 4),
    }


def evaluate(
    folder: Path, gguf_path: Path, encoder: Encoder, config: ModelConfig, wrong: Path
) -> dict[str, Any]:
    """Scores of all answerers by skill; wrong answers are written to ``wrong`` to look at."""
    items = held_out_items()
    answerers: dict[str, Answerer | None] = {
        "safetensors": torch_answerer(folder, encoder, config),
        "gguf_dequantised": dequantised_answerer(gguf_path, encoder, config),
        "gguf_llama_cpp": llama_cpp_answerer(gguf_path, encoder),
    }
    results: dict[str, Any] = {skill: {} for skill in items}
    texts: dict[str, list[str]] = {}
    with wrong.open("w", encoding="utf-8") as out:
        for name, answerer in answerers.items():
            if answerer is None:
                continue
            started = time.perf_counter()
            for skill, group in items.items():
                made = answerer(group)
                results[skill][name] = score(group, made)
                texts.setdefault(name, []).extend(text for text, _ in made)
                for item, (text, _) in zip(group, made, strict=True):
                    if not is_right(item, text):
                        turns = [message.content for message in item.messages]
                        out.write(json.dumps([name, skill, turns, text], ensure_ascii=False) + "\n")
            print(name, f"{time.perf_counter() - started:.0f} s", flush=True)
    return {
        "items_per_skill": ITEMS_PER_SKILL,
        "seed": EVALUATION_SEED,
        "claim_at": CLAIM_AT,
        "skills": results,
        "harder": harder_scores(answerers["safetensors"]),
        "same_text_as_safetensors": agreement(texts),
    }


def harder_scores(answerer: Answerer | None) -> dict[str, dict[str, float]]:
    """Scores of the harder forms."""
    if answerer is None:
        return {}
    return {name: score(group, answerer(group)) for name, group in harder_items().items()}


def agreement(texts: dict[str, list[str]]) -> dict[str, float]:
    """Share of the held-out items whose greedy answer is the very text of the safetensors'."""
    base = texts["safetensors"]
    return {
        name: round(sum(a == b for a, b in zip(base, other, strict=True)) / len(base), 4)
        for name, other in texts.items()
        if name != "safetensors"
    }


def write_sample(path: Path, per_skill: int = 25) -> None:
    """A modest sample of the held-out items, for other tests."""
    with path.open("w", encoding="utf-8") as out:
        for skill, group in held_out_items().items():
            for item in group[:per_skill]:
                turns = [{"role": m.role, "content": m.content} for m in item.messages[:-1]]
                record: dict[str, Any] = {"skill": skill, "messages": turns}
                if item.tools:
                    record["tools"] = [{"type": "function", "function": t} for t in item.tools]
                if skill == sql.SKILL:
                    record["tables"] = item.facts["tables"]
                record["answer"] = item.answer
                out.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_evaluation(home: Path, work: Path) -> None:
    """Score the exported weights and write ``evaluation.json`` and the held-out sample."""
    torch.set_num_threads(2)
    config, model_config = TrainConfig(), ModelConfig()
    counts = run_counts(work)
    checked = check_disjoint({**held_out_items(), **harder_items()}, config, counts["chunks"])
    encoder = Encoder(load_tokenizer(home / "hf" / "tokenizer.json"))
    gguf_path = home / "parlm-tiny-q8_0.gguf"
    figures = evaluate(home / "hf", gguf_path, encoder, model_config, work / "wrong.jsonl")
    figures["training"] = {
        **counts,
        "seed": config.seed,
        "parameters": sum(p.numel() for p in read_gguf(gguf_path, model_config).parameters()),
        "machine": MACHINE,
        "training_items_checked": checked,
    }
    write_json(home / "evaluation.json", figures)
    write_sample(home / "heldout_sample.jsonl")
