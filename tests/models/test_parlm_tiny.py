"""The shipped model parlm-tiny: its data generators, its files and its card agree."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

HOME = Path(__file__).resolve().parents[2] / "models" / "parlm-tiny"
GGUF_PATH = HOME / "parlm-tiny-q8_0.gguf"
MEGABYTES = 1_000_000
SAMPLE_PER_SKILL = 25


def recipe(name: str, needs: tuple[str, ...] = ()) -> ModuleType:
    """A module of the folder's recipe; the test is skipped if what it needs is missing."""
    for package in needs:
        pytest.importorskip(package, reason=f"{package} is not installed")
    if str(HOME) not in sys.path:
        sys.path.insert(0, str(HOME))
    return importlib.import_module(f"parlm_tiny.{name}")


def sample() -> list[dict[str, Any]]:
    """The held-out sample."""
    lines = (HOME / "heldout_sample.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def evaluation() -> dict[str, Any]:
    """The figures of the card."""
    figures: dict[str, Any] = json.loads((HOME / "evaluation.json").read_text(encoding="utf-8"))
    return figures


def gguf_fields() -> dict[str, Any]:
    """The GGUF's metadata as plain values."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    fields = gguf.GGUFReader(str(GGUF_PATH)).fields
    return {name: field.contents() for name, field in fields.items()}


@pytest.mark.parametrize("chunk", [0, 7])
def test_training_data_is_deterministic(chunk: int) -> None:
    """The same seed and chunk give the same conversations; another chunk gives others."""
    mixture = recipe("mixture")
    first = mixture.training_chunk(20, chunk, 50)
    assert first == mixture.training_chunk(20, chunk, 50)
    assert first != mixture.training_chunk(20, chunk + 1, 50)


def test_held_out_items_are_not_training_items() -> None:
    """No held-out item is in a sample of the training data, nor on the training side."""
    mixture, items = recipe("mixture"), recipe("items")
    held_out = [item for skill in mixture.SKILLS for item in mixture.held_out(2, skill, 40)]
    keys = {item.key() for item in held_out}
    assert len(keys) == len(held_out)
    assert all(items.is_held_out(item) for item in held_out)
    drawn = mixture.training_chunk(20, 3, 2000)
    assert not any(item.key() in keys for _, made in drawn for item in made)


def test_arithmetic_answers_are_right() -> None:
    """The working's last number is the sum or the difference."""
    arithmetic = recipe("skills.arithmetic")
    rng = Random(0)
    for _ in range(300):
        a, b = rng.randrange(1000), rng.randrange(1000)
        assert arithmetic.addition_answer(a, b).endswith(f"So {a} + {b} = {a + b}.")
        assert arithmetic.subtraction_answer(a, b).endswith(f"So {a} - {b} = {a - b}.")
    assert arithmetic.addition_answer(347, 285) == (
        "Ones: 7 + 5 = 12. Tens: 4 + 8 + 1 = 13. Hundreds: 3 + 2 + 1 = 6. So 347 + 285 = 632."
    )
    assert arithmetic.subtraction_working(503, 27) == (
        "Ones: 13 - 7 = 6, borrow 1. Tens: 10 - 2 - 1 = 7, borrow 1. Hundreds: 5 - 0 - 1 = 4."
    )


def test_generated_answers_score_as_right() -> None:
    """Every generator's own answer is right, and an empty one is not."""
    mixture, scoring = recipe("mixture"), recipe("scoring")
    for generate in mixture.SKILLS.values():
        rng = Random(5)
        for _ in range(20):
            item = generate(rng)
            assert scoring.is_right(item, item.answer), item
            assert not scoring.is_right(item, ""), item


def test_wrong_sql_scores_as_wrong() -> None:
    """A query that runs but returns something else is not right."""
    scoring = recipe("scoring")
    tables = {"users": ["name", "age", "city"]}
    right = "SELECT COUNT(*) FROM users WHERE age > 30;"
    assert scoring.same_results("SELECT COUNT(*) FROM users WHERE 30 < age", right, tables)
    assert not scoring.same_results("SELECT COUNT(*) FROM users;", right, tables)
    assert not scoring.same_results("SELECT nothing", right, tables)


def test_weights_stay_small() -> None:
    """Both forms of the weights together stay below 17 MB."""
    files = [GGUF_PATH, HOME / "hf" / "model.safetensors"]
    assert sum(path.stat().st_size for path in files) < 17 * MEGABYTES


def test_gguf_header() -> None:
    """The file begins with GGUF's magic and version 3."""
    header = GGUF_PATH.read_bytes()[:8]
    assert header == b"GGUF" + (3).to_bytes(4, "little")


def test_gguf_metadata_matches_the_configuration() -> None:
    """Sizes in the GGUF are those of config.json."""
    fields = gguf_fields()
    config = json.loads((HOME / "hf" / "config.json").read_text(encoding="utf-8"))
    assert fields["general.architecture"] == "llama" == config["model_type"]
    assert fields["llama.block_count"] == config["num_hidden_layers"]
    assert fields["llama.embedding_length"] == config["hidden_size"]
    assert fields["llama.feed_forward_length"] == config["intermediate_size"]
    assert fields["llama.attention.head_count"] == config["num_attention_heads"]
    assert fields["llama.attention.head_count_kv"] == config["num_key_value_heads"]
    assert fields["llama.context_length"] == config["max_position_embeddings"]
    assert fields["llama.vocab_size"] == config["vocab_size"]


def test_gguf_tokenizer_matches_tokenizer_json() -> None:
    """Tokens, merges, special tokens and template are the same in both files."""
    fields = gguf_fields()
    tokenizer = json.loads((HOME / "hf" / "tokenizer.json").read_text(encoding="utf-8"))
    config = json.loads((HOME / "hf" / "tokenizer_config.json").read_text(encoding="utf-8"))
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    assert tokens == sorted(vocab, key=vocab.__getitem__)
    merges = [
        one if isinstance(one, str) else " ".join(one) for one in tokenizer["model"]["merges"]
    ]
    assert fields["tokenizer.ggml.merges"] == merges
    assert fields["tokenizer.ggml.model"] == "gpt2"
    assert fields["tokenizer.ggml.pre"] == "smollm"
    assert tokens[fields["tokenizer.ggml.eos_token_id"]] == config["eos_token"] == "<|im_end|>"
    assert not fields["tokenizer.ggml.add_bos_token"]
    assert fields["tokenizer.chat_template"] == config["chat_template"]


def test_every_byte_and_single_digits() -> None:
    """All 256 bytes have a token, and no token holds two digits."""
    tokenizer = json.loads((HOME / "hf" / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    assert sum(len(token) == 1 for token in vocab) == 256
    assert not any(sum(letter.isdigit() for letter in token) > 1 for token in vocab)


def test_template_renders_what_was_trained_on() -> None:
    """The Jinja template gives the turns that the training data was encoded from."""
    jinja2 = pytest.importorskip("jinja2", reason="jinja2 is not installed")
    config = json.loads((HOME / "hf" / "tokenizer_config.json").read_text(encoding="utf-8"))
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(config["chat_template"])
    for record in sample():
        tools = [
            json.dumps(tool["function"], ensure_ascii=False) for tool in record.get("tools", [])
        ]
        expected = ""
        if tools:
            expected = "<|im_start|>system\n" + "\n".join(["Tools:", *tools]) + "<|im_end|>\n"
        for turn in record["messages"]:
            expected += f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n"
        rendered = template.render(
            messages=record["messages"], tools=record.get("tools"), add_generation_prompt=True
        )
        assert rendered == expected + "<|im_start|>assistant\n"


def test_template_writes_tool_calls_as_text() -> None:
    """A client's ``tool_calls`` become the text that the model is trained to write."""
    jinja2 = pytest.importorskip("jinja2", reason="jinja2 is not installed")
    config = json.loads((HOME / "hf" / "tokenizer_config.json").read_text(encoding="utf-8"))
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    call = {"function": {"name": "get_time", "arguments": '{"city": "Paris"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What time is it in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    rendered = environment.from_string(config["chat_template"]).render(messages=messages)
    assert rendered == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhat time is it in Paris?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "get_time", "arguments": {"city": "Paris"}}\n'
        "</tool_call><|im_end|>\n"
    )


def test_sample_has_every_skill() -> None:
    """The held-out sample has the same number of items of each skill of the evaluation."""
    skills = [record["skill"] for record in sample()]
    assert {skill: skills.count(skill) for skill in skills} == dict.fromkeys(
        evaluation()["skills"], SAMPLE_PER_SKILL
    )


def test_card_tables_are_those_of_the_evaluation() -> None:
    """The generated parts of the card are what evaluation.json gives."""
    card = recipe("card")
    text = (HOME / "README.md").read_text(encoding="utf-8")
    for name, content in card.generated_parts(evaluation()).items():
        assert card.fill(text, name, content) == text


def test_claims_follow_the_threshold() -> None:
    """A skill below 90 % in any measured form is not claimed in the card."""
    card = recipe("card")
    text = (HOME / "README.md").read_text(encoding="utf-8")
    for skill, scores in evaluation()["skills"].items():
        line = next(one for one in text.splitlines() if one.startswith(f"| {card.TITLES[skill]} |"))
        lowest = min(score["accuracy"] for score in scores.values())
        assert line.endswith("| yes |" if lowest >= 0.9 else "| not claimed |")


def test_both_weights_answer_the_same() -> None:
    """In torch, the safetensors and the dequantised GGUF answer a greeting alike, and end."""
    export = recipe("export", ("torch", "numpy", "safetensors", "gguf", "tokenizers"))
    encoding, answering = recipe("encoding"), recipe("answering")
    items, config = recipe("items"), recipe("config").ModelConfig()
    encoder = encoding.Encoder(encoding.load_tokenizer(HOME / "hf" / "tokenizer.json"))
    hello = [items.ask("greeting", "Hello!", "")]
    made = [
        answering.answers(model, encoder, hello)
        for model in (export.read_hf(HOME / "hf", config), export.read_gguf(GGUF_PATH, config))
    ]
    assert made[0] == made[1]
    text, ended = made[0][0]
    assert text.startswith("Hello!") and ended


def test_training_forward_pass_equals_the_cached_one() -> None:
    """The flat forward pass and the decoding one give the same next token."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    export = recipe("export", ("numpy", "safetensors", "gguf", "tokenizers"))
    generation, config = recipe("generation"), recipe("config").ModelConfig()
    model = export.read_hf(HOME / "hf", config)
    rows, length = 3, 12
    ids = torch.randint(3, 2048, (rows, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = model.hidden(torch.cat((ids.flatten(), torch.zeros(4).long())), rows, length)
        flat = hidden[: rows * length].view(rows, length, -1)[:, -1]
        expected = flat @ model.model.embed_tokens.weight.T
        cache = generation.Cache(model, rows, length)
        cached = generation.advance(model, cache, ids, torch.zeros(rows).long())
    assert torch.allclose(expected, cached, atol=1e-3)
