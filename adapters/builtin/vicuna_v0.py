"""The prompts of the first Vicuna (delta-v0, April 2023), which Guanaco has taken over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapters.builtin.family import FamilyChatAdapter
from adapters.prompts import refuse_tools, turns
from adapters.registry import chat_adapters
from engines.types import Message, PartsPrompt, Tool

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant "
    "gives helpful, detailed, and polite answers to the human's questions."
)
EXAMPLE_QUESTION = "Got any creative ideas for a 10 year old’s birthday?"
EXAMPLE_ANSWER = (
    "Of course! Here are some creative ideas for a 10-year-old's birthday party:\n"
    "1. Treasure Hunt: Organize a treasure hunt in your backyard or nearby park. Create clues "
    "and riddles for the kids to solve, leading them to hidden treasures and surprises.\n"
    "2. Science Party: Plan a science-themed party where kids can engage in fun and interactive "
    "experiments. You can set up different stations with activities like making slime, erupting "
    "volcanoes, or creating simple chemical reactions.\n"
    "3. Outdoor Movie Night: Set up a backyard movie night with a projector and a large screen "
    "or white sheet. Create a cozy seating area with blankets and pillows, and serve popcorn and "
    "snacks while the kids enjoy a favorite movie under the stars.\n"
    "4. DIY Crafts Party: Arrange a craft party where kids can unleash their creativity. Provide "
    "a variety of craft supplies like beads, paints, and fabrics, and let them create their own "
    "unique masterpieces to take home as party favors.\n"
    "5. Sports Olympics: Host a mini Olympics event with various sports and games. Set up "
    "different stations for activities like sack races, relay races, basketball shooting, and "
    "obstacle courses. Give out medals or certificates to the participants.\n"
    "6. Cooking Party: Have a cooking-themed party where the kids can prepare their own mini "
    "pizzas, cupcakes, or cookies. Provide toppings, frosting, and decorating supplies, and let "
    "them get hands-on in the kitchen.\n"
    "7. Superhero Training Camp: Create a superhero-themed party where the kids can engage in "
    "fun training activities. Set up an obstacle course, have them design their own superhero "
    "capes or masks, and organize superhero-themed games and challenges.\n"
    "8. Outdoor Adventure: Plan an outdoor adventure party at a local park or nature reserve. "
    "Arrange activities like hiking, nature scavenger hunts, or a picnic with games. Encourage "
    "exploration and appreciation for the outdoors.\n"
    "Remember to tailor the activities to the birthday child's interests and preferences. Have a "
    "great celebration!"
)


@chat_adapters.register
class VicunaV0ChatAdapter(FamilyChatAdapter):
    """Vicuna v0: `system⏎### Human: question⏎### Assistant: answer⏎### Human: …`.

    The chat begins with an example, as in FastChat 0.2.36, template `one_shot`. These weights
    write on as `### Human` where others end with `</s>`.
    """

    name = "vicuna-v0"
    architectures = frozenset({"llama"})
    sampling_defaults: Mapping[str, float] = {"temperature": 0.7}

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the turns. Raises `UnsupportedChat` for tools."""
        example = (Message("user", EXAMPLE_QUESTION), Message("assistant", EXAMPLE_ANSWER))
        return human_turns([*example, *messages], tools)


@chat_adapters.register
class VicunaV0ZeroShotChatAdapter(FamilyChatAdapter):
    """Vicuna v0 without the example: FastChat's template `zero_shot`."""

    name = "vicuna-v0-zero-shot"
    architectures = frozenset({"llama"})
    sampling_defaults: Mapping[str, float] = {"temperature": 0.7}

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the turns. Raises `UnsupportedChat` for tools."""
        return human_turns(messages, tools)


def human_turns(messages: Sequence[Message], tools: Sequence[Tool]) -> PartsPrompt:
    """Write a chat between a human and an assistant. Raises `UnsupportedChat` for tools."""
    refuse_tools(messages, tools)
    prompt = turns(
        messages, user="### Human", assistant="### Assistant", system=SYSTEM, stop=("###",)
    )
    return PartsPrompt(prompt.parts, stop=prompt.stop, stop_tokens=("</s>",))
