"""Calling a tool that the system turn describes, and answering from its result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from parlm_tiny import words
from parlm_tiny.items import Item, Message, Tool, is_held_out, vary
from parlm_tiny.skills import greeting

SKILL = "tools"

NO_TOOL = "I have no tool for that."


@dataclass(frozen=True)
class Argument:
    """An argument: the names it may have, its JSON type and a draw of its value."""

    names: tuple[str, ...]
    kind: str
    value: Callable[[Random], str | int]


@dataclass(frozen=True)
class Ability:
    """What a tool can do; ``{0}``, ``{1}`` in the texts stand for its arguments' values."""

    names: tuple[str, ...]
    description: str
    arguments: tuple[Argument, ...]
    requests: tuple[str, ...]
    result: Callable[[Random], dict[str, str | int]]
    reply: str


def one_of(values: list[str] | tuple[str, ...]) -> Callable[[Random], str]:
    """A draw from a list."""
    return lambda rng: rng.choice(values)


def between(low: int, high: int) -> Callable[[Random], int]:
    """A draw from a range."""
    return lambda rng: rng.randint(low, high)


CITY = Argument(("city", "location", "place"), "string", one_of(words.CITIES))
SKIES = ("sunny", "rainy", "cloudy", "windy", "foggy", "snowy")
ROOMS = ("kitchen", "bedroom", "office", "garage", "bathroom", "garden")
CURRENCIES = ("EUR", "USD", "GBP", "JPY", "CHF")
MUSIC = ("jazz", "rock", "pop", "blues", "folk")

ABILITIES = (
    Ability(
        ("get_weather", "weather", "current_weather", "lookup_weather"),
        "Get the weather in a city",
        (CITY,),
        (
            "What is the weather in {0}?",
            "How is the weather in {0}?",
            "What's the weather like in {0}?",
            "Tell me the weather in {0}.",
            "Is it raining in {0}?",
        ),
        lambda rng: {"temperature": rng.randint(1, 39), "sky": rng.choice(SKIES)},
        "In {0} it is {sky} and {temperature} degrees.",
    ),
    Ability(
        ("get_time", "local_time", "current_time"),
        "Get the time in a city",
        (CITY,),
        ("What time is it in {0}?", "Tell me the time in {0}.", "What is the time in {0}?"),
        lambda rng: {"time": f"{rng.randint(1, 23)}:{rng.randint(10, 59)}"},
        "In {0} it is {time}.",
    ),
    Ability(
        ("set_timer", "start_timer", "timer"),
        "Start a timer",
        (Argument(("minutes", "duration"), "integer", between(1, 90)),),
        (
            "Set a timer for {0} minutes.",
            "Start a timer of {0} minutes.",
            "Time {0} minutes for me.",
        ),
        lambda _: {"status": "started"},
        "The timer of {0} minutes has started.",
    ),
    Ability(
        ("multiply", "product", "times"),
        "Multiply two numbers",
        (
            Argument(("a", "x"), "integer", between(2, 99)),
            Argument(("b", "y"), "integer", between(2, 99)),
        ),
        ("Multiply {0} by {1}.", "What is {0} times {1}?", "What is {0} * {1}?"),
        lambda rng: {"result": rng.randint(100, 9000)},
        "The result is {result}.",
    ),
    Ability(
        ("search_flights", "find_flights", "flights"),
        "Find flights between two cities",
        (
            Argument(("from", "origin"), "string", one_of(words.CITIES)),
            Argument(("to", "destination"), "string", one_of(words.CITIES)),
        ),
        (
            "Find flights from {0} to {1}.",
            "Show me flights from {0} to {1}.",
            "I want to fly from {0} to {1}.",
        ),
        lambda rng: {"count": rng.randint(2, 40), "price": rng.randint(50, 900)},
        "I found {count} flights from {0} to {1}, the best price is {price}.",
    ),
    Ability(
        ("convert_currency", "convert_money", "exchange"),
        "Convert money into another currency",
        (
            Argument(("amount", "value"), "integer", between(2, 999)),
            Argument(("from", "source"), "string", one_of(CURRENCIES)),
            Argument(("to", "target"), "string", one_of(CURRENCIES)),
        ),
        ("Convert {0} {1} to {2}.", "How much is {0} {1} in {2}?", "Change {0} {1} into {2}."),
        lambda rng: {"result": rng.randint(2, 999)},
        "{0} {1} is {result} {2}.",
    ),
    Ability(
        ("play_music", "play", "start_music"),
        "Play music",
        (Argument(("genre", "style"), "string", one_of(MUSIC)),),
        ("Play some {0}.", "Play {0} music.", "I want to hear {0}.", "Put on some {0}."),
        lambda _: {"status": "playing"},
        "Now playing {0}.",
    ),
    Ability(
        ("turn_on_light", "light_on", "switch_light"),
        "Turn on the light in a room",
        (Argument(("room", "area"), "string", one_of(ROOMS)),),
        (
            "Turn on the light in the {0}.",
            "Light on in the {0}, please.",
            "Switch on the {0} light.",
        ),
        lambda _: {"status": "on"},
        "The light in the {0} is on.",
    ),
    Ability(
        ("book_table", "reserve_table", "reserve"),
        "Book a table in a restaurant",
        (
            Argument(("people", "guests"), "integer", between(2, 12)),
            Argument(("day", "date"), "string", one_of(words.DAYS)),
        ),
        (
            "Book a table for {0} on {1}.",
            "Reserve a table for {0} people on {1}.",
            "I need a table for {0} on {1}.",
        ),
        lambda rng: {"status": "booked", "number": rng.randint(10, 99)},
        "The table for {0} on {1} is booked, number {number}.",
    ),
    Ability(
        ("send_email", "send_mail", "email"),
        "Send an email to a person",
        (
            Argument(("to", "recipient"), "string", one_of(words.NAMES)),
            Argument(("subject", "topic"), "string", one_of(words.THINGS)),
        ),
        (
            "Send an email to {0} about {1}.",
            "Email {0} about {1}.",
            "Write a mail to {0} about {1}.",
        ),
        lambda _: {"status": "sent"},
        "The email to {0} was sent.",
    ),
    Ability(
        ("get_stock_price", "stock_price", "stock"),
        "Get the stock price of a company",
        (Argument(("company", "name"), "string", one_of(words.COMPANIES)),),
        ("What is the stock price of {0}?", "How is the {0} stock?", "Get the stock price of {0}."),
        lambda rng: {"price": rng.randint(5, 900)},
        "The stock price of {0} is {price}.",
    ),
    Ability(
        ("find_contact", "phone_number", "get_contact"),
        "Look up the phone number of a person",
        (Argument(("name", "person"), "string", one_of(words.NAMES)),),
        (
            "What is the phone number of {0}?",
            "Find the phone number of {0}.",
            "How can I call {0}?",
        ),
        lambda rng: {"phone": str(rng.randint(100000, 999999))},
        "The phone number of {0} is {phone}.",
    ),
)

OFFERS = ("", "", "", "You are a helpful assistant.")


def plain_tool(ability: Ability) -> Tool:
    """A tool's definition with the first of each of its possible names."""
    properties = {one.names[0]: {"type": one.kind} for one in ability.arguments}
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }
    name, description = ability.names[0], ability.description
    return {"name": name, "description": description, "parameters": parameters}


def draw_tool(rng: Random, ability: Ability) -> Tool:
    """A tool's definition with names drawn from the ability's choices."""
    names = [rng.choice(argument.names) for argument in ability.arguments]
    kinds = [argument.kind for argument in ability.arguments]
    properties = {name: {"type": kind} for name, kind in zip(names, kinds, strict=True)}
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.5:
        parameters["required"] = names
    return {
        "name": rng.choice(ability.names),
        "description": ability.description,
        "parameters": parameters,
    }


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """An assistant's tool call as the text it is trained to write."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def draw_values(rng: Random, ability: Ability) -> list[str | int]:
    """Values of the arguments; two text values are never the same."""
    while True:
        values = [argument.value(rng) for argument in ability.arguments]
        texts = [value for value in values if isinstance(value, str)]
        if len(set(texts)) == len(texts):
            return values


def plain(rng: Random) -> tuple[Message, ...]:
    """A training item of small talk, which is answered as if there were no tools."""
    while True:
        item = greeting.generate(rng)
        if not is_held_out(item):
            return item.messages


def generate_varied(rng: Random) -> Item:
    """As ``generate``, but tools and arguments have one of several names each."""
    ability, *others = rng.sample(ABILITIES, rng.choice((1, 2, 2, 3)) + 1)
    tools = [draw_tool(rng, one) for one in (ability, *others[1:])]
    return request(rng, ability, others[0], tools)


def generate(rng: Random) -> Item:
    """A request that one of one to three tools serves, or none does."""
    ability, *others = rng.sample(ABILITIES, rng.choice((1, 2, 2, 3)) + 1)
    tools = [plain_tool(one) for one in (ability, *others[1:])]
    return request(rng, ability, others[0], tools)


def generate_refusal(rng: Random) -> Item:
    """A request that none of one to three tools serves."""
    missing, *others = rng.sample(ABILITIES, rng.choice((1, 2, 2, 3)) + 1)
    turns = refusal(rng, missing)
    return Item(SKILL, turns, tuple(plain_tool(one) for one in others), {"kind": "none"})


def refusal(rng: Random, missing: Ability) -> tuple[Message, Message]:
    """A request and the answer that there is no tool for it."""
    question = rng.choice(missing.requests).format(*draw_values(rng, missing))
    return Message("user", vary(rng, question, case=False)), Message("assistant", NO_TOOL)


def request(rng: Random, ability: Ability, missing: Ability, tools: list[Tool]) -> Item:
    """A request, its call or its refusal, perhaps the result; the first tool is the right one.

    missing: an ability that none of the tools has.
    """
    mine = tools[0]
    rng.shuffle(tools)
    kind = rng.random()
    if kind < 0.08:
        return Item(SKILL, plain(rng), tuple(tools), {"kind": "plain"})
    if kind < 0.22:
        return Item(SKILL, refusal(rng, missing), tuple(tools), {"kind": "none"})
    values = draw_values(rng, ability)
    question = vary(rng, rng.choice(ability.requests).format(*values), case=False)
    names = list(mine["parameters"]["properties"])
    call = call_text(mine["name"], dict(zip(names, values, strict=True)))
    turns = [Message("user", question), Message("assistant", call)]
    if rng.random() < 0.3:
        result = ability.result(rng)
        turns.append(Message("tool", json.dumps(result)))
        turns.append(Message("assistant", ability.reply.format(*values, **result)))
        return Item(SKILL, tuple(turns), tuple(tools), {"kind": "result"})
    return Item(SKILL, tuple(turns), tuple(tools), {"kind": "call"})
