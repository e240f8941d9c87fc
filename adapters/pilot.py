"""The modules of DB-GPT v0.3 that adapters written for it import from, as far as parlm has them.

`from pilot.model.llm_out.chatglm_llm import chatglm_generate_stream`, as its pages write, finds
parlm's function of that kind. Where the real `pilot` is installed, it is that which is found.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

_PACKAGES = ("pilot", "pilot.configs", "pilot.model", "pilot.model.llm_out", "pilot.server")
_LOAD_CLASSES = (
    *("VicunaLLMAdapater", "ChatGLMAdapater", "GuanacoAdapter", "FalconAdapater"),
    *("GorillaAdapter", "GPT4AllAdapter", "Llama2Adapter", "ProxyllmAdapter"),
)
_CHAT_CLASSES = (
    *("VicunaChatAdapter", "ChatGLMChatAdapter", "GuanacoChatAdapter", "FalconChatAdapter"),
    *("GorillaChatAdapter", "GPT4AllChatAdapter", "Llama2ChatAdapter", "ProxyllmChatAdapter"),
)
_LOAD_REGISTRY = ("register_llm_model_adapters", "get_llm_model_adapter", "llm_model_adapters")
_CHAT_REGISTRY = (
    *("register_llm_model_chat_adapter", "get_llm_chat_adapter", "llm_model_chat_adapters"),
)
# Module -> its names, each with what it is called in `adapters.inherited` if not the same.
_MODULES: dict[str, dict[str, str]] = {
    "pilot.configs.model_config": {"DEVICE": "DEVICE"},
    "pilot.model.adapter": {n: n for n in ("BaseLLMAdaper", *_LOAD_REGISTRY, *_LOAD_CLASSES)},
    "pilot.server.chat_adapter": {
        name: name for name in ("BaseChatAdpter", *_CHAT_REGISTRY, *_CHAT_CLASSES)
    },
    "pilot.model.inference": {"generate_stream": "generate_stream"},
    "pilot.model.llm_out.vicuna_base_llm": {"generate_stream": "generate_stream"},
    "pilot.model.llm_out.chatglm_llm": {"chatglm_generate_stream": "generate_stream"},
    "pilot.model.llm_out.guanaco_llm": {"guanaco_generate_stream": "generate_stream"},
    "pilot.model.llm_out.gorilla_llm": {"generate_stream": "generate_stream"},
}


class PilotFinder(MetaPathFinder, Loader):
    """Finds the modules above after every other finder has failed."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return the spec of a module that is known here."""
        if fullname not in _PACKAGES and fullname not in _MODULES:
            return None
        return spec_from_loader(fullname, self, is_package=fullname in _PACKAGES)

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module with the names it is known for."""
        inherited = import_module("adapters.inherited")
        for name, source in _MODULES.get(module.__name__, {}).items():
            setattr(module, name, getattr(inherited, source))


def install() -> None:
    """Let imports of `pilot` find what is here; a second time changes nothing."""
    if not any(isinstance(finder, PilotFinder) for finder in sys.meta_path):
        sys.meta_path.append(PilotFinder())
