"""Chat templates of the shapes that public models have, written for these tests."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import LoopControlExtension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adapters.marks import strip_marks
from adapters.templates import TemplateSource
from engines.types import Message

CHATML = TemplateSource(
    """{% for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    None,
    "<|endoftext|>",
)

LLAMA_2 = TemplateSource(
    """{% if messages[0]['role'] == 'system' %}
{% set loop_messages = messages[1:] %}
{% set system_message = '<<SYS>>\\n' + messages[0]['content'].strip() + '\\n<</SYS>>\\n\\n' %}
{% else %}
{% set loop_messages = messages %}
{% set system_message = '' %}
{% endif %}
{% for message in loop_messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% set content = system_message + message['content'] if loop.index0 == 0 else message['content'] %}
{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}
{{ ' ' + content.strip() + ' ' + eos_token }}
{%- endif %}
{% endfor %}
""",
    ("<unk>", "<s>", "</s>"),
    "<s>",
    "</s>",
)

MISTRAL = TemplateSource(
    """{%- set ns = namespace(index=0) %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role not in ['user', 'assistant'] %}
        {{- raise_exception('Only user and assistant roles are supported!') }}
    {%- endif %}
    {%- if (message.role == 'user') != (ns.index % 2 == 0) %}
        {{- raise_exception('After the optional system message, roles must alternate') }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' ~ message.content ~ '[/INST]' }}
    {%- else %}
        {{- ' ' ~ message.content|trim ~ eos_token }}
    {%- endif %}
{%- endfor %}
""",
    ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"),
    "<s>",
    "</s>",
)

LLAMA_3 = TemplateSource(
    """{{- bos_token }}
{%- if tools is not none %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\nYou may call:\\n\\n' }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- '\\n\\n' }}
    {%- endfor %}
    {{- '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {{- message.content | tojson ~ '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if message.tool_calls | length != 1 %}
            {{- raise_exception('This model only supports single tool-calls at once!') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", ' }}
        {{- '"parameters": ' ~ call.arguments | tojson ~ '}<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
     "<|eot_id|>", "<|python_tag|>"),
    "<|begin_of_text|>",
    "<|end_of_text|>",
)  # fmt: skip

SHAPES = {"chatml": CHATML, "llama-2": LLAMA_2, "mistral": MISTRAL, "llama-3": LLAMA_3}


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def plain_rendering(source: TemplateSource, messages: list[Message]) -> str:
    """What transformers' `apply_chat_template` prints: the same environment, nothing marked."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension]
    )
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.filters["tojson"] = _tojson
    chat = [{"role": m.role, "content": strip_marks(m.content)} for m in messages]
    return environment.from_string(source.text).render(
        messages=chat,
        tools=None,
        documents=None,
        add_generation_prompt=True,
        bos_token=source.bos_token or "",
        eos_token=source.eos_token or "",
    )


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
