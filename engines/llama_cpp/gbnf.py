r"""From GBNF, the grammar notation of llama.cpp, to the Lark notation that llguidance reads.

GBNF: llama.cpp `grammars/README.md`. References to tokens (`<[12]>`, `<think>`) are left out: a
constraint is about text. llguidance's own converter is not used because it takes quadratic time,
and reads `\u` escapes and `.` otherwise than llama.cpp.

llguidance splits text into terminals, each as long as can be, before it parses. Here a rule from
which no recursion can be reached is a terminal. So a grammar without recursion is one regular
expression, matched exactly; in a recursive one a terminal takes all the characters it can, and
a grammar that needs it to leave some to its successor accepts less than in llama.cpp. It never
accepts more.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# llguidance nests Lark notation not much deeper.
MAX_NESTING = 25

_ESCAPE = r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[\\\"\[\]trn-])"  # as in llama.cpp
_TOKEN = re.compile(
    rf"""
    (?P<space>  [ \t]+ | \#[^\r\n]* )
  | (?P<newline>\r\n | \n | \r )
  | (?P<define> ::= )
  | (?P<name>   [A-Za-z0-9_-]+ )
  | (?P<literal>"(?:[^"\\] | {_ESCAPE})*+" )
  | (?P<set>    \[\^?(?:[^\]\\] | {_ESCAPE})*+\] )
  | (?P<repeat> [*+?] | \{{\s*[0-9]{{1,6}}\s*(?:,\s*(?:[0-9]{{1,6}}\s*)?)?\}} )
  | (?P<other>  [().|] )
    """,
    re.VERBOSE,
)
_CHARACTER = re.compile(rf"{_ESCAPE}|.", re.DOTALL)
_PLAIN_ESCAPES = {"t": "\t", "r": "\r", "n": "\n"}


class GbnfError(Exception):
    """The text is no GBNF. The message says what and in which line, not with which words."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class _Reference:
    name: str
    line: int


@dataclass(slots=True)
class _Rule:
    """A rule in words of Lark, the other rules it refers to among them."""

    body: list[str | _Reference] = field(default_factory=list)

    @property
    def references(self) -> set[str]:
        return {part.name for part in self.body if isinstance(part, _Reference)}


def gbnf_to_lark(text: str) -> str:
    """Return a grammar's rules in Lark notation, beginning with `start`. Raises `GbnfError`."""
    rules = _Parser(list(_tokens(text))).rules()
    if "root" not in rules:
        raise GbnfError("it has no rule 'root'")
    for rule in rules.values():
        for part in rule.body:
            if isinstance(part, _Reference) and part.name not in rules:
                raise GbnfError(f"line {part.line} refers to a rule that is not there")
    terminals = _terminals(rules)
    names = {
        name: f"RULE_{number}" if name in terminals else f"rule_{number}"
        for number, name in enumerate(rules)
    }
    lines = [f"start: {names['root']}"]
    for name, rule in rules.items():
        words = (names[word.name] if isinstance(word, _Reference) else word for word in rule.body)
        lines.append(f"{names[name]}: {' '.join(words)}")
    return "\n".join(lines)


def _terminals(rules: Mapping[str, _Rule]) -> set[str]:
    """Return the rules from which no recursion can be reached."""
    users: dict[str, list[str]] = {name: [] for name in rules}
    n_open: dict[str, int] = {}
    for name, rule in rules.items():
        n_open[name] = len(rule.references)
        for reference in rule.references:
            users[reference].append(name)
    found = [name for name, count in n_open.items() if not count]
    for name in found:
        for user in users[name]:
            n_open[user] -= 1
            if not n_open[user]:
                found.append(user)
    return set(found)


def _tokens(text: str) -> Iterator[_Token]:
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise GbnfError(f"line {line} cannot be read")
        if match.lastgroup != "space":
            yield _Token(match.lastgroup or "", match[0], line)
        line += match[0].count("\n") or (match[0] == "\r")
        position = match.end()
    yield _Token("newline", "\n", line)


class _Parser:
    """Recursive descent over the tokens; only parentheses recurse."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0

    def rules(self) -> dict[str, _Rule]:
        """Read all rules; of two with one name the last counts, as in llama.cpp."""
        rules: dict[str, _Rule] = {}
        self._skip_newlines()
        while self._next < len(self._tokens):
            name = self._expect("name", "the name of a rule")
            self._expect("define", "'::='")
            self._skip_newlines()
            rule = _Rule()
            self._alternatives(rule, 0)
            self._expect("newline", "the end of the rule")
            rules[name.text] = rule
            self._skip_newlines()
        return rules

    def _alternatives(self, rule: _Rule, depth: int) -> None:
        if depth > MAX_NESTING:
            raise GbnfError(f"it nests parentheses more than {MAX_NESTING} deep")
        self._sequence(rule, depth)
        while self._take("|"):
            self._skip_newlines()
            rule.body.append("|")
            self._sequence(rule, depth)

    def _sequence(self, rule: _Rule, depth: int) -> None:
        start = len(rule.body)
        while self._item(rule, depth):
            repeat = self._peek()
            if repeat.kind == "repeat":
                self._next += 1
                rule.body.append("".join(repeat.text.split()))
            if depth:
                self._skip_newlines()
        if len(rule.body) == start:
            rule.body.append('""')

    def _item(self, rule: _Rule, depth: int) -> bool:
        """Read one item into the rule; tell whether there was one."""
        token = self._peek()
        if token.kind == "newline" or token.text in ("|", ")"):
            return False
        self._next += 1
        if token.text == "(":
            rule.body.append("(")
            self._skip_newlines()
            self._alternatives(rule, depth + 1)
            if not self._take(")"):
                raise GbnfError(f"a parenthesis of line {token.line} is not closed")
            rule.body.append(")")
        elif token.kind == "name":
            rule.body.append(_Reference(token.text, token.line))
        else:
            rule.body.append(_terminal(token))
        return True

    def _peek(self) -> _Token:
        """Return the next token; at the end the newline that always is the last."""
        return self._tokens[min(self._next, len(self._tokens) - 1)]

    def _take(self, text: str) -> bool:
        is_there = self._peek().text == text
        self._next += is_there
        return is_there

    def _expect(self, kind: str, what: str) -> _Token:
        token = self._peek()
        if token.kind != kind:
            raise GbnfError(f"line {token.line} should have {what}")
        self._next += 1
        return token

    def _skip_newlines(self) -> None:
        while self._next < len(self._tokens) and self._peek().kind == "newline":
            self._next += 1


def _terminal(token: _Token) -> str:
    """Return a string, a set of characters or `.` as Lark writes it."""
    if token.text == ".":
        return "/(?s:.)/"
    if token.kind == "literal":
        text = "".join(_characters(token.text[1:-1], token.line))
        return json.dumps(text)
    if token.kind == "set":
        return _set(token)
    raise GbnfError(f"line {token.line} has a mark where an item should be")


def _set(token: _Token) -> str:
    """Return a set of characters as a regular expression, every one of them as its number."""
    inside = token.text[1:-1]
    sign = "^" if inside.startswith("^") else ""
    marks = _CHARACTER.findall(inside[len(sign) :])
    characters = _characters(inside[len(sign) :], token.line)
    ranges = []
    position = 0
    while position < len(characters):
        first = last = characters[position]
        # A minus that is first, last or escaped stands for itself.
        if marks[position + 1 : position + 2] == ["-"] and position + 2 < len(characters):
            last = characters[position + 2]
            position += 2
        if last < first:
            raise GbnfError(f"line {token.line} has a range whose end is before its beginning")
        ranges.append(f"\\x{{{ord(first):x}}}-\\x{{{ord(last):x}}}")
        position += 1
    if not ranges:
        raise GbnfError(f"line {token.line} has an empty set of characters")
    return f"/[{sign}{''.join(ranges)}]/"


def _characters(text: str, line: int) -> list[str]:
    """Return the characters that a text with escapes stands for."""
    characters = []
    for mark in _CHARACTER.findall(text):
        number = ord(mark) if len(mark) == 1 else _number(mark)
        if number > sys.maxunicode or 0xD800 <= number < 0xE000:
            raise GbnfError(f"line {line} has an escape that is no character")
        characters.append(chr(number))
    return characters


def _number(escape: str) -> int:
    """Return the code point of an escape."""
    if escape[1] in "xuU":
        return int(escape[2:], 16)
    return ord(_PLAIN_ESCAPES.get(escape[1], escape[1]))
