"""How to configure parlm: its settings, its commands and how to choose models."""

from __future__ import annotations

from random import Random

from parlm_tiny.items import Item, ask, vary
from parlm_tiny.words import listed

SKILL = "configuration"

SETTINGS: dict[str, str] = {
    "LLM_MODEL": "LLM_MODEL names the model to serve; several names are separated by commas.",
    "MODEL_SERVER": "MODEL_SERVER is the address of the model server that clients use.",
    "LLM_ENGINE": "LLM_ENGINE chooses the engine: auto, vllm, llama_cpp, transformers or proxy.",
    "LLM_MODEL_PATH": "LLM_MODEL_PATH is the path of the model's files.",
    "LLM_ADAPTER": "LLM_ADAPTER names the adapter that writes the model's prompts.",
    "API_KEYS": "API_KEYS is the list of keys that clients may use, separated by commas.",
    "PROXY_API_KEY": "PROXY_API_KEY is the key that parlm sends to the proxied service.",
    "PROXY_SERVER_URL": "PROXY_SERVER_URL is the address of the proxied service.",
    "PROXYLLM_BACKEND": "PROXYLLM_BACKEND is the model's name at the proxied service.",
    "LIMIT_MODEL_CONCURRENCY": (
        "LIMIT_MODEL_CONCURRENCY is the number of requests that a model serves at once."
    ),
    "MAX_POSITION_EMBEDDINGS": "MAX_POSITION_EMBEDDINGS is the context length in tokens.",
    "QUANTIZE_8bit": "QUANTIZE_8bit=True loads the weights in 8 bits.",
    "QUANTIZE_4bit": "QUANTIZE_4bit=True loads the weights in 4 bits.",
    "NUM_GPUS": "NUM_GPUS is the number of GPUs to use.",
    "MAX_GPU_MEMORY": "MAX_GPU_MEMORY is the most memory to use on each GPU.",
    "CUDA_VISIBLE_DEVICES": "CUDA_VISIBLE_DEVICES lists the GPUs that parlm may see.",
}
ABOUT_SETTING = (
    "What is {s}?",
    "What does {s} do?",
    "What does {s} mean?",
    "Explain {s}.",
    "What is {s} for?",
    "Tell me about {s}.",
    "What is the setting {s}?",
    "What does the setting {s} do?",
)

COMMANDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "start parlm",
            "start the server",
            "run the server",
            "run parlm",
            "launch parlm",
            "serve a model",
        ),
        "Run make serve or parlm serve.",
    ),
    (
        ("chat with the model", "chat in the terminal", "talk to the model", "start a chat"),
        "Run parlm chat.",
    ),
    (
        ("list the models", "see the models", "show the models", "see which models are served"),
        "Run parlm models.",
    ),
    (("run the tests", "test parlm", "start the tests", "run the test suite"), "Run make test."),
    (
        ("use the OpenAI client", "connect a client", "connect the OpenAI client", "call the API"),
        "Set the base URL of the client to http://127.0.0.1:8000/v1.",
    ),
    (
        ("serve several models", "use several models", "serve more than one model"),
        "Set LLM_MODEL to their names separated by commas, then restart the server.",
    ),
    (
        ("protect the server", "ask clients for a key", "require an API key"),
        "Set API_KEYS in .env to the keys that clients may use, then restart the server.",
    ),
    (
        ("use OpenAI", "use the OpenAI service", "forward requests to OpenAI", "use a proxy"),
        "Set LLM_ENGINE=proxy, PROXY_API_KEY and PROXY_SERVER_URL in .env and restart the server.",
    ),
    (
        ("load a local model", "use a model from disk", "use my own model"),
        "Set LLM_MODEL_PATH in .env to the path of the model and restart the server.",
    ),
)
HOW_TO = (
    "How do I {x}?",
    "How can I {x}?",
    "How to {x}?",
    "How do you {x}?",
    "I want to {x}.",
    "Tell me how to {x}.",
    "What do I do to {x}?",
    "Please explain how to {x}.",
    "How would I {x}?",
    "Can you tell me how to {x}?",
)
URL = ("What is the base URL?", "What base URL do I use?", "Which URL do clients use?")

MODELS = listed(
    """
    vicuna-13b vicuna-7b llama-2-7b llama-3-8b qwen-7b qwen-14b mistral-7b chatglm-6b
    baichuan-7b gemma-2b gemma-7b phi-2 parlm-tiny gpt-4 falcon-7b
    """
)
ENGINES = listed("vllm llama_cpp transformers proxy auto")

USE_MODEL = (
    "How do I use {m}?",
    "How can I serve {m}?",
    "How do I choose {m}?",
    "How do I switch to {m}?",
    "I want to use {m}.",
    "I want to run {m}.",
    "Serve {m}.",
    "How do I serve the model {m}?",
    "How do I run {m}?",
    "How do I select {m} as the model?",
)
ASSIGN = "Set {s}={v} in .env and restart the server."


def assign(rng: Random, setting: str, value: str, phrases: tuple[str, ...]) -> tuple[str, str]:
    """A question that is answered by setting a variable."""
    return rng.choice(phrases).format(v=value), ASSIGN.format(s=setting, v=value)


def model_question(rng: Random) -> tuple[str, str]:
    """Choosing one model, or two or three."""
    models = rng.sample(MODELS, rng.choice((1, 1, 2, 2, 3)))
    said = " and ".join((", ".join(models[:-1]), models[-1])) if len(models) > 1 else models[0]
    return rng.choice(USE_MODEL).format(m=said), ASSIGN.format(s="LLM_MODEL", v=",".join(models))


def number_question(rng: Random) -> tuple[str, str]:
    """Settings that take a number."""
    kind = rng.randrange(5)
    if kind == 0:
        phrases: tuple[str, ...] = (
            "How do I use {v} GPUs?",
            "I have {v} GPUs.",
            "How do I run on {v} GPUs?",
            "I want to use {v} GPUs.",
        )
        return assign(rng, "NUM_GPUS", str(rng.randint(2, 16)), phrases)
    if kind == 1:
        phrases = (
            "How do I limit a model to {v} requests at once?",
            "How do I allow {v} requests at once?",
            "Serve at most {v} requests at once.",
            "How do I set the concurrency to {v}?",
        )
        return assign(rng, "LIMIT_MODEL_CONCURRENCY", str(rng.randint(1, 64)), phrases)
    if kind == 2:
        phrases = (
            "How do I set the context length to {v}?",
            "I need a context of {v} tokens.",
            "How do I get a context of {v} tokens?",
            "Set the context to {v} tokens.",
        )
        length = rng.choice((512, 1024, 2048, 4096, 8192, 16384, 32768, rng.randint(5, 99) * 100))
        return assign(rng, "MAX_POSITION_EMBEDDINGS", str(length), phrases)
    if kind == 3:
        phrases = (
            "How do I use only {v} GB of GPU memory?",
            "How do I limit the GPU memory to {v} GB?",
            "Use at most {v} GB of GPU memory.",
        )
        size = rng.randint(4, 80)
        question, _ = assign(rng, "", str(size), phrases)
        return question, ASSIGN.format(s="MAX_GPU_MEMORY", v=f"{size}Gib")
    phrases = (
        "How do I use GPU {v}?",
        "How do I run on GPU {v}?",
        "Use only GPU {v}.",
        "How do I choose GPU {v}?",
    )
    return assign(rng, "CUDA_VISIBLE_DEVICES", str(rng.randint(0, 15)), phrases)


def choice_question(rng: Random) -> tuple[str, str]:
    """Engines, adapters, proxied models, quantisation and ports."""
    kind = rng.randrange(5)
    if kind == 0:
        phrases: tuple[str, ...] = (
            "How do I use the {v} engine?",
            "How do I choose {v} as the engine?",
            "I want to use the {v} engine.",
            "How do I switch the engine to {v}?",
            "How do I run with the {v} engine?",
        )
        return assign(rng, "LLM_ENGINE", rng.choice(ENGINES), phrases)
    if kind == 1:
        phrases = (
            "How do I use {v} through the proxy?",
            "How do I proxy {v}?",
            "How do I forward to {v} with the proxy?",
            "I want {v} through the proxy.",
        )
        return assign(rng, "PROXYLLM_BACKEND", rng.choice(MODELS), phrases)
    if kind == 2:
        bits = rng.choice(("4", "8"))
        phrases = (
            "How do I load the model in {v} bits?",
            "How do I quantize to {v} bits?",
            "How do I use {v} bit weights?",
            "I want to quantize the model to {v} bits.",
        )
        question, _ = assign(rng, "", bits, phrases)
        return question, ASSIGN.format(s=f"QUANTIZE_{bits}bit", v="True")
    if kind == 3:
        phrases = (
            "How do I use the {v} adapter?",
            "How do I choose the adapter {v}?",
            "I want the prompts of the {v} adapter.",
        )
        return assign(rng, "LLM_ADAPTER", rng.choice(MODELS), phrases)
    port = str(rng.randint(3000, 9999))
    phrases = (
        "The model server is on port {v}.",
        "How do I use a model server on port {v}?",
        "My model server runs on port {v}.",
    )
    question, _ = assign(rng, "", port, phrases)
    return question, ASSIGN.format(s="MODEL_SERVER", v=f"http://127.0.0.1:{port}")


def generate(rng: Random) -> Item:
    """A question about a setting, a command, a model, a number or a choice."""
    kind = rng.choices(range(6), (4, 4, 3, 3, 3, 0.5))[0]
    if kind == 0:
        setting = rng.choice(sorted(SETTINGS))
        question, answer = rng.choice(ABOUT_SETTING).format(s=setting), SETTINGS[setting]
    elif kind == 1:
        wishes, answer = rng.choice(COMMANDS)
        question = rng.choice(HOW_TO).format(x=rng.choice(wishes))
    elif kind == 2:
        question, answer = model_question(rng)
    elif kind == 3:
        question, answer = number_question(rng)
    elif kind == 4:
        question, answer = choice_question(rng)
    else:
        question, answer = rng.choice(URL), "The base URL is http://127.0.0.1:8000/v1."
    return ask(SKILL, vary_keeping_names(rng, question), answer)


def vary_keeping_names(rng: Random, question: str) -> str:
    """Vary the mark; the case only of the first letter, for the names are to be copied."""
    question = vary(rng, question, case=False)
    prefix = rng.choice(("", "", "", "", "", "Hi, ", "Please help: ", "Question: ", "In parlm, "))
    if prefix or rng.random() < 0.25:
        question = prefix + question[0].lower() + question[1:]
    return question
