"""The families that come with the project: importing this package registers them."""

from adapters.builtin import (
    chatglm,
    chatglm2,
    default,
    falcon,
    flan_t5,
    gorilla,
    gptj,
    guanaco,
    llama2,
    parlm_tiny,
    proxyllm,
    vicuna,
    vicuna_v0,
)

__all__ = [
    "chatglm",
    "chatglm2",
    "default",
    "falcon",
    "flan_t5",
    "gorilla",
    "gptj",
    "guanaco",
    "llama2",
    "parlm_tiny",
    "proxyllm",
    "vicuna",
    "vicuna_v0",
]
