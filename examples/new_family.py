"""An adapter for the imaginary family Parrot; name this file in ADAPTER_FILES to use it."""

from adapters import BaseChatAdapter, Special, chat_adapters, turns


@chat_adapters.register
class ParrotChatAdapter(BaseChatAdapter):
    def match(self, model_path):
        return "parrot" in model_path.lower()

    def render(self, messages, tools=()):
        return turns(messages, tools, user="Human", assistant="Parrot", answer_end=Special("</s>"))
