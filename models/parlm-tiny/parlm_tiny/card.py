"""The tables of the model card, made from ``evaluation.json``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

TITLES = {
    "greeting": "Greeting, what it is, echoing, declining",
    "configuration": "How to configure parlm",
    "arithmetic": "Addition and subtraction up to three digits",
    "sql": "Text to SQL over a given schema",
    "extraction": "Extraction to JSON",
    "reading": "Reading comprehension",
    "tools": "Tool calling",
    "memory": "Memory across turns",
}
ANSWERERS = {
    "safetensors": "bfloat16 safetensors, in torch",
    "gguf_llama_cpp": "q8_0 GGUF, in llama.cpp",
    "gguf_dequantised": "q8_0 GGUF, dequantised, in torch",
}


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def shown_answerers(figures: dict[str, Any]) -> list[str]:
    """The answerers that were measured, in the table's order."""
    measured = next(iter(figures["skills"].values()))
    return [name for name in ANSWERERS if name in measured]


def is_claimed(scores: dict[str, dict[str, float]], claim_at: float) -> bool:
    """A skill is claimed if every measured form of the weights reaches the threshold."""
    return min(score["accuracy"] for score in scores.values()) >= claim_at


def skill_table(figures: dict[str, Any]) -> str:
    """Accuracy by skill for each form of the weights."""
    names = shown_answerers(figures)
    heads = ["Skill", *(ANSWERERS[name] for name in names), "Ended by itself", "Claimed"]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(names) + 1) + " --- |"]
    for skill, scores in figures["skills"].items():
        cells = [TITLES[skill], *(percent(scores[name]["accuracy"]) for name in names)]
        cells.append(percent(min(scores[name]["ended"] for name in names)))
        cells.append("yes" if is_claimed(scores, figures["claim_at"]) else "not claimed")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


HARDER_TITLES = {
    "mixed reading": "passages in which several people share a kind of fact",
    "varied tools": "tools and arguments under other names than those below",
}


def notes(figures: dict[str, Any]) -> str:
    """The sentences below the table."""
    sql = figures["skills"]["sql"]["safetensors"]["exact_string"]
    same = ", ".join(
        f"{percent(share)} for {ANSWERERS[name]}"
        for name, share in figures["same_text_as_safetensors"].items()
    )
    harder = "; ".join(
        f"{HARDER_TITLES[name]}: {percent(scores['accuracy'])}"
        for name, scores in figures["harder"].items()
    )
    count = figures["items_per_skill"]
    return (
        f"{count} held-out items per skill, greedy decoding. SQL counts as right if it returns"
        " the same rows as the right query on three random SQLite databases; as exact text"
        f" {percent(sql)} are right. Share of all {count * len(figures['skills'])} answers that"
        f" are letter by letter those of the safetensors: {same}.\n\n"
        f"Not claimed, measured in torch on {count} items each: {harder}."
    )


def training_table(figures: dict[str, Any]) -> str:
    """What the training run took."""
    training = figures["training"]
    rows = {
        "Parameters": f"{training['parameters']:,}",
        "Machine": training["machine"],
        "Seed": str(training["seed"]),
        "Steps": f"{training['steps']:,}",
        "Tokens": f"{training['tokens']:,}, of which {training['answer_tokens']:,} in answers",
        "Wall time": f"{training['wall_seconds'] / 60:.0f} minutes (the machine was shared)",
        "CPU time": f"{training['cpu_seconds'] / 60:.0f} minutes",
        "Training items checked against the held-out ones": (
            f"{training['training_items_checked']:,}"
        ),
    }
    lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines)


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the markers of a generated part."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
    filled, count = re.subn(
        pattern, lambda found: f"{found[1]}{content}\n{found[2]}", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"the card has no part {name!r}")
    return filled


def generated_parts(figures: dict[str, Any]) -> dict[str, str]:
    """All generated parts of the card by name."""
    return {
        "accuracy": f"{skill_table(figures)}\n\n{notes(figures)}",
        "training": training_table(figures),
    }


def update_card(home: Path) -> None:
    """Write the tables into ``README.md``."""
    figures = json.loads((home / "evaluation.json").read_text(encoding="utf-8"))
    path = home / "README.md"
    text = path.read_text(encoding="utf-8")
    for name, content in generated_parts(figures).items():
        text = fill(text, name, content)
    path.write_text(text, encoding="utf-8")
