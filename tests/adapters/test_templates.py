from __future__ import annotations

import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import UnsupportedChat
from adapters.templates import MAX_OUTPUT, ChatTemplate, TemplateSource, as_object
from engines.types import Message, PartsPrompt, Special, Text, Tool, ToolCall
from tests.adapters.shapes import CHATML, LLAMA_2, LLAMA_3, MISTRAL, SHAPES, plain_rendering

CHAT = [Message("user", " Hi "), Message("assistant", "Hello."), Message("user", "Bye")]
TOOL = Tool("weather", "Tell the weather", '{"type": "object", "properties": {"city": {}}}')
TEMPLATES = {name: ChatTemplate(source) for name, source in SHAPES.items()}
SPECIALS = sorted({token for source in SHAPES.values() for token in source.special_tokens})

# Contents made of what is dangerous: names of special tokens, whole, cut and overlapping.
pieces = st.sampled_from(SPECIALS).flatmap(
    lambda token: st.tuples(st.integers(0, len(token)), st.integers(0, len(token))).map(
        lambda cut: token[min(cut) : max(cut)]
    )
)
contents = st.lists(
    st.one_of(pieces, st.sampled_from([*SPECIALS, " ", "\n"]), st.text(max_size=3)), max_size=6
).map("".join)


def chat_of(first: str, answer: str, last: str) -> list[Message]:
    return [Message("user", first), Message("assistant", answer), Message("user", last)]


def specials(prompt: PartsPrompt) -> list[str]:
    return [part.token for part in prompt.parts if isinstance(part, Special)]


@pytest.mark.parametrize("name", SHAPES)
@given(first=contents, answer=contents, last=contents)
def test_contents_stay_text_and_the_text_is_that_of_a_plain_rendering(
    name: str, first: str, answer: str, last: str
) -> None:
    chat = chat_of(first, answer, last)
    prompt = TEMPLATES[name].render(chat)
    assert prompt.text == plain_rendering(SHAPES[name], chat)
    assert specials(prompt) == specials(TEMPLATES[name].render(chat_of("a", "b", "c")))


def test_chatml() -> None:
    prompt = ChatTemplate(CHATML).render([Message("system", "Be brief."), *CHAT])
    assert prompt.text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert prompt.parts[:3] == (
        Special("<|im_start|>"), Text("system\nBe brief."), Special("<|im_end|>"),
    )  # fmt: skip


def test_llama_2() -> None:
    prompt = ChatTemplate(LLAMA_2).render([Message("system", "Be brief."), *CHAT])
    assert prompt.text == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi [/INST] Hello. </s><s>[INST] Bye [/INST]"
    )
    assert specials(prompt) == ["<s>", "</s>", "<s>"]
    assert not prompt.add_bos


def test_mistral() -> None:
    prompt = ChatTemplate(MISTRAL).render(CHAT)
    assert prompt.text == "<s>[INST]  Hi [/INST] Hello.</s>[INST] Bye[/INST]"
    assert specials(prompt) == ["<s>", "[INST]", "[/INST]", "</s>", "[INST]", "[/INST]"]


def test_llama_3() -> None:
    prompt = ChatTemplate(LLAMA_3).render(CHAT[:1])
    assert prompt.text == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_tools_are_objects_to_the_template() -> None:
    prompt = ChatTemplate(LLAMA_3).render(CHAT[:1], [TOOL])
    assert '"parameters": {\n            "type": "object",' in prompt.text


def test_calls_and_results() -> None:
    call = ToolCall("c1", "weather", '{"city":"Malmö <|eot_id|>"}')
    chat = [Message("assistant", tool_calls=(call,)), Message("tool", '"1"', tool_call_id="c1")]
    prompt = ChatTemplate(LLAMA_3).render(chat)
    assert '"parameters": {"city": "Malmö <|eot_id|>"}}' in prompt.text
    assert specials(prompt).count("<|eot_id|>") == 2


def test_a_result_has_the_name_of_its_call() -> None:
    source = TemplateSource("{% for m in messages %}{{ m.name }} {% endfor %}")
    call = ToolCall("c1", "weather", "{}")
    chat = [Message("assistant", tool_calls=(call,)), Message("tool", "1", tool_call_id="c1")]
    assert ChatTemplate(source).render(chat).text.split() == ["weather"]


def test_the_reason_a_template_gives_is_passed_on() -> None:
    with pytest.raises(UnsupportedChat, match="refuses: After the optional system message"):
        ChatTemplate(MISTRAL).render([CHAT[0], CHAT[0]])


def test_a_reason_is_bounded_and_without_marks() -> None:
    source = TemplateSource("{{ raise_exception(messages[0].content) }}", ("<s>",))
    with pytest.raises(UnsupportedChat) as raised:
        ChatTemplate(source).render([Message("user", "<s>" * 10_000)])
    assert str(raised.value) == "this model's chat template refuses: " + ("<s>" * 200)[:500]


@pytest.mark.parametrize("text", ["{{ 1 / 0 }}", "{{ messages[7].content.x }}", "{{ 'a' + 1 }}"])
def test_a_failing_template_says_nothing_of_the_chat(text: str) -> None:
    with pytest.raises(UnsupportedChat, match=r"^this model's chat template cannot render"):
        ChatTemplate(TemplateSource(text)).render([Message("user", "secret")])


def test_arguments_nested_beyond_recursion_are_refused_or_text() -> None:
    call = ToolCall("c1", "f", "[" * 100_000 + "]" * 100_000)
    prompt = ChatTemplate(LLAMA_3).render([Message("assistant", tool_calls=(call,))])
    assert "[[[" in prompt.text


def test_arguments_nested_deeply_but_parseable_do_not_crash() -> None:
    call = ToolCall("c1", "f", "[" * 900 + "]" * 900)
    chat = [Message("assistant", tool_calls=(call,))]
    try:
        ChatTemplate(LLAMA_3).render(chat)
    except UnsupportedChat as error:
        assert "cannot render" in str(error)


@pytest.mark.parametrize("text", ["no json", "", '{"a": "\\ud800"}', "[" * 9000])
def test_what_is_no_object_stays_text(text: str) -> None:
    assert as_object(text) == text


def test_output_is_bounded() -> None:
    source = TemplateSource("{% for i in range(99999) %}{{ messages[0].content }}{% endfor %}")
    with pytest.raises(UnsupportedChat, match=f"more than {MAX_OUTPUT} characters"):
        ChatTemplate(source).render([Message("user", "x" * 1000)])


def test_a_longer_context_allows_more_output() -> None:
    assert TemplateSource("", context_length=1_000_000).max_output == 8_000_000


@pytest.mark.parametrize(
    ("text", "adds_bos"),
    [
        ("{{ messages[0].content }}", True),
        ("{{ bos_token }}{{ messages[0].content }}", False),
        ("<s>{{ messages[0].content }}", False),
        ("{% if false %}{{ bos_token }}{% endif %}", False),
    ],
)
def test_bos_is_written_once(text: str, adds_bos: bool) -> None:
    source = TemplateSource(text, ("<s>", "</s>"), "<s>", "</s>")
    assert ChatTemplate(source).render([Message("user", "<s>")]).add_bos is adds_bos


def test_developer_is_system_to_templates_that_do_not_know_it() -> None:
    prompt = ChatTemplate(CHATML).render([Message("developer", "Be brief.")])
    assert prompt.text.startswith("<|im_start|>system\n")
    knowing = TemplateSource("{{ messages[0].role == 'developer' }}")
    assert ChatTemplate(knowing).render([Message("developer", "")]).text == "True"


def test_contents_as_parts() -> None:
    source = TemplateSource(
        "{% for p in messages[0].content %}{{ p.type }}:{{ p.text }}{% endfor %}"
    )
    prompt = ChatTemplate(source).render([Message("user", "hi")], content_parts=True)
    assert prompt.text == "text:hi"


def test_what_huggingface_gives_templates() -> None:
    source = TemplateSource(
        "{% generation %}{{ strftime_now('%Y') }}{% endgeneration %}"
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        "{{ {'a': '<ä>'} | tojson }}{{ {'a': 'ä'} | tojson(ensure_ascii=true) }}"
    )
    year = datetime.now().strftime("%Y")
    assert ChatTemplate(source).render([]).text == year + '01{"a": "<ä>"}{"a": "\\u00e4"}'


def test_printed_containers_and_ascii_json_hold_no_marks() -> None:
    source = TemplateSource(
        "{{ messages }}{{ messages[0].content | tojson(ensure_ascii=true) }}", ("<s>",)
    )
    prompt = ChatTemplate(source).render([Message("user", "<s> \\ufdd0 \\\\ufdd0 é")])
    assert prompt.text == (
        "[{'role': 'user', 'content': '<s> \\\\ufdd0 \\\\\\\\ufdd0 é'}]"
        '"<s> \\\\ufdd0 \\\\\\\\ufdd0 \\u00e9"'
    )
    assert specials(prompt) == []


def test_a_long_chat_renders_in_linear_time() -> None:
    source = TemplateSource(CHATML.text, tuple(f"<unused{i}>" for i in range(6000)))
    template = ChatTemplate(source)
    before = time.process_time()
    template.render([Message("user", "<unused" * 100_000)])
    assert time.process_time() - before < 10  # quadratic time would be hours
