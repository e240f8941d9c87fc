from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from engines.llama_cpp.binding import Model, Vocabulary
from engines.llama_cpp.constraints import ConstraintCompiler
from engines.llama_cpp.gbnf import MAX_NESTING, GbnfError, gbnf_to_lark
from engines.types import Grammar
from tests.engines.llama_cpp.walking import accepts

# After llama.cpp's grammars/json.gbnf.
JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws
# Optional space
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.fixture(scope="module")
def vocabulary(tiny_gguf: Path) -> Iterator[Vocabulary]:
    model = Model(str(tiny_gguf), n_gpu_layers=0, use_mmap=True, use_mlock=False)
    yield model.vocabulary
    model.close()


@pytest.mark.parametrize(
    ("gbnf", "yes", "no"),
    [
        (JSON, ['{"a": [1, -2.5e-1, {"b": null}], "c": "\\n\\u00e9é"}', "{}"], ["[1]", '{"a": }']),
        ('root ::= ("a" | "ab") "bc"', ["abc", "abbc"], ["ab"]),
        ('root ::= word "b"\nword ::= [a-z]+', ["aab", "abb"], ["aa"]),
        ('root ::= "a" .', ["a\n", "a日"], ["a", "ab c"]),
        (r'root ::= "\u0041\x42\U0001F600\t\"\\"', ['AB😀\t"\\'], ["AB"]),
        (r"root ::= [^\"\\\]]+", ["x[/", "日"], ["", "]", '"']),
        (r"root ::= [a\-z]", ["-", "z"], ["b"]),
        ("root ::= [-a]", ["-", "a"], ["b"]),
        ("root ::= [a-]", ["-", "a"], ["b"]),
        ("root ::= [ぁ-ゟ]{2,3}", ["ひら"], ["ひ", "ab"]),
        ('root ::= "a"{2} "b"{1,} "c"{ 0 , 1 }', ["aab", "aabbc"], ["ab", "aa", "aabcc"]),
        ('root ::= (\n "a"\n | "b" # or\n)+ # and\r\n', ["ab"], ["", "c"]),
        ('root ::= | "x"', ["", "x"], ["xx"]),
        ('root ::= "x" |\n', ["", "x"], ["xx"]),
        ('a_b ::= "x"\nroot ::= a_b c-d\nc-d ::= "y"', ["xy"], ["x"]),
        ('root ::= expr\nexpr ::= expr "+" [0-9]+ | [0-9]+', ["1", "1+22+3"], ["1+", "+"]),
        ('root ::= "a"\nroot ::= "b"', ["b"], ["a"]),
    ],
)
def test_it_means_what_it_means_in_llama_cpp(
    vocabulary: Vocabulary, gbnf: str, yes: list[str], no: list[str]
) -> None:
    compiled = ConstraintCompiler(vocabulary).compile(Grammar(gbnf))
    assert [text for text in yes if not accepts(compiled, vocabulary, text)] == []
    assert [text for text in no if accepts(compiled, vocabulary, text)] == []


@pytest.mark.parametrize(
    ("gbnf", "message"),
    [
        ("", "no rule 'root'"),
        ('x ::= "a"', "no rule 'root'"),
        ("root", "line 1 should have '::='"),
        ("root ::= a\n\nb ::= c\na ::= b", "line 3 refers to a rule that is not there"),
        ('root ::= "a', "line 1 cannot be read"),
        ('root ::= "a"\n  | "b"', "line 2 should have the name of a rule"),
        (r'root ::= "\q"', "line 1 cannot be read"),
        ("root ::= <think>", "line 1 cannot be read"),
        ('root ::= ("a"', "parenthesis of line 1 is not closed"),
        ('root ::= "a")', "line 1 should have the end of the rule"),
        ("root ::= []", "empty set"),
        ("root ::= [^]", "empty set"),
        ("root ::= [z-a]", "range whose end"),
        (r'root ::= "\ud800"', "no character"),
        (r"root ::= [\U00110000]", "no character"),
        ("root ::= *", "a mark where an item should be"),
        ('root ::= "a"*+', "a mark where an item should be"),
        ("root ::= " + "(" * 30 + '"a"' + ")" * 30, "parentheses more than"),
    ],
)
def test_what_is_no_grammar_is_refused_with_its_line(gbnf: str, message: str) -> None:
    with pytest.raises(GbnfError, match=message):
        gbnf_to_lark(gbnf)


def test_what_may_be_nested_compiles(vocabulary: Vocabulary) -> None:
    nested = "root ::= " + "(" * MAX_NESTING + '"a"' + ")" * MAX_NESTING
    assert accepts(ConstraintCompiler(vocabulary).compile(Grammar(nested)), vocabulary, "a")


def test_rules_without_recursion_are_terminals() -> None:
    lark = gbnf_to_lark('root ::= "(" root ")" | w\nw ::= c+\nc ::= [a-z]')
    assert lark.splitlines() == [
        "start: rule_0",
        'rule_0: "(" rule_0 ")" | RULE_1',
        "RULE_1: RULE_2 +",
        "RULE_2: /[\\x{61}-\\x{7a}]/",
    ]
