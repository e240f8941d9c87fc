"""Messages between an engine's supervisor and the child process that runs its core.

A frame is a 4-byte big-endian length and that many bytes of msgpack. Every message is a tagged
struct of a closed set, decoded against its type: nothing on this wire can name a class to build
or a function to call.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import msgspec

from engines.wire_types import WireError, WireOutput, WirePrompt, WireRequest

MAX_FRAME_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")


class FrameError(Exception):
    """The bytes on the connection are no message of this protocol, or a frame is too large."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""


class Launch(Message, frozen=True, tag="launch"):
    """Parent to child, first: which core to build (`module:function`) with which options."""

    core: str
    options: dict[str, Any]


class Submit(Message, frozen=True, tag="submit"):
    """Parent to child: run this request."""

    request: WireRequest


class Cancel(Message, frozen=True, tag="cancel"):
    """Parent to child: nobody listens to this request any more."""

    request_id: str


class Tokenize(Message, frozen=True, tag="tokenize"):
    """Parent to child: which token ids is this prompt? `call` names the answer."""

    call: int
    prompt: WirePrompt


class Embed(Message, frozen=True, tag="embed"):
    """Parent to child: turn these prompts into vectors. `Cancel` ends it too."""

    request_id: str
    prompts: tuple[WirePrompt, ...]
    dimensions: int | None = None


class Shutdown(Message, frozen=True, tag="shutdown"):
    """Parent to child: free the model and exit."""


class Heartbeat(Message, frozen=True, tag="heartbeat"):
    """Child to parent: alive while loading, or done with commands that led to no step.

    `steps` counts the core's steps, `commands` the messages the child has handled since
    `Launch`, `active` the requests it runs. It is never sent from beside a running step, so that
    it cannot hide one that hangs.
    """

    steps: int
    commands: int
    active: int


class LoadProgress(Message, frozen=True, tag="load_progress"):
    """Child to parent, while loading: what it does now, in words; it has come further."""

    detail: str


class Loaded(Message, frozen=True, tag="loaded"):
    """Child to parent: the core is ready. `detail` is a sentence for the log.

    `generates` is False for a model that only makes embeddings.
    """

    context_length: int
    detail: str = ""
    generates: bool = True


class LoadFailed(Message, frozen=True, tag="load_failed"):
    """Child to parent: the core could not be built; the child exits."""

    error: WireError


class Outputs(Message, frozen=True, tag="outputs"):
    """Child to parent: what one step produced. Sent after every step, also an empty one."""

    steps: int
    commands: int
    outputs: tuple[WireOutput, ...] = ()


class Tokenized(Message, frozen=True, tag="tokenized"):
    """Child to parent: the ids that a `Tokenize` asked for, or why there are none."""

    call: int
    token_ids: tuple[int, ...] = ()
    error: WireError | None = None


class Embedded(Message, frozen=True, tag="embedded"):
    """Child to parent: a part of what an `Embed` asked for, sent after each piece of work.

    `vectors` are pairs of a prompt's index and its vector; `is_last` says that all have come.
    """

    request_id: str
    vectors: tuple[tuple[int, bytes], ...] = ()
    prompt_tokens: int = 0
    is_last: bool = False
    error: WireError | None = None


ToChild = Launch | Submit | Cancel | Tokenize | Embed | Shutdown
ToParent = LoadProgress | Loaded | LoadFailed | Outputs | Tokenized | Embedded | Heartbeat


def _path_as_text(value: object) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form on the wire")


_encoder = msgspec.msgpack.Encoder(enc_hook=_path_as_text)
_to_child: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)
_to_parent: msgspec.msgpack.Decoder[ToParent] = msgspec.msgpack.Decoder(ToParent)


def encode(message: ToChild | ToParent) -> bytes:
    """Build the frame of a message; a path among the options travels as text.

    Raises `FrameError` for a message above `MAX_FRAME_BYTES`, `TypeError` for a value and
    `UnicodeEncodeError` for a string (with a lone surrogate) that has no form on the wire.
    """
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes is above the cap of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


def decode_to_child(body: bytes) -> ToChild:
    """Read a message from the parent. Raises `FrameError`."""
    try:
        return _to_child.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameError(f"not a message to the child: {error}") from error


def decode_to_parent(body: bytes) -> ToParent:
    """Read a message from the child. Raises `FrameError`."""
    try:
        return _to_parent.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameError(f"not a message to the parent: {error}") from error


class FrameBuffer:
    """Cuts received bytes into frames, however the kernel cut them into reads."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def is_partial(self) -> bool:
        """Whether the beginning of a frame is held whose end has not come."""
        return bool(self._data)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what was read; yield the bodies of the frames it completes.

        Raises `FrameError` as soon as a length above the cap is seen, before it is buffered.
        """
        self._data += data
        start = 0
        try:
            while (end := self._end_of_frame(start)) is not None:
                yield bytes(self._data[start + _LENGTH.size : end])
                start = end
        finally:
            del self._data[:start]

    def _end_of_frame(self, start: int) -> int | None:
        """Where the frame at `start` ends, or None while it is incomplete."""
        if len(self._data) - start < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._data, start)
        if length > MAX_FRAME_BYTES:
            raise FrameError(f"a frame of {length} bytes is above the cap of {MAX_FRAME_BYTES}")
        end = start + _LENGTH.size + int(length)
        return end if end <= len(self._data) else None
