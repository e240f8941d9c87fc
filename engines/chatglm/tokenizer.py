"""The tokenizers of ChatGLM-6B and of its later generations, on SentencePiece alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import sentencepiece

from engines.chatglm.config import V1Config, V2Config
from engines.decoding.prompt import cut_names
from engines.errors import InvalidRequest, ModelLoadError

V1_FILE, V2_FILE = "ice_text.model", "tokenizer.model"
MASK, GMASK, SMASK = "[MASK]", "[gMASK]", "[sMASK]"
V1_BOS, V1_EOS = "<sop>", "<eop>"
V2_BOS, V2_EOS = "sop", "</s>"
_V1_SPECIAL = (MASK, GMASK, SMASK, "<unused_0>", V1_BOS, V1_EOS, "<ENC>", "<dBLOCK>", "<pad>")
# They have no pieces: their ids follow the last one in this order. The roles are ChatGLM3's;
# ChatGLM2 has no use for those ids.
_V2_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
_V2_SPECIAL = (MASK, GMASK, SMASK, V2_BOS, "eop", *_V2_ROLES)
# ChatGLM3 ends a turn with the role of the next one.
_V2_END = (V2_EOS, "<|user|>", "<|observation|>")

# White space that the first generation has pieces for. Runs of spaces go up to 80.
_NEW_LINE, _TAB = "<n>", "<|tab|>"
_SPACES = re.compile(" {2,80}")
_BLANK = re.compile(r"<\|blank_(\d+)\|>")
_WORD_START = "\u2581"


class Tokenizer:
    """Texts to a ChatGLM's token ids and back; `engines.transformers.vocabulary.Vocabulary`.

    No control token ever comes out of a text, whatever is written in it. `pieces[id]` are the
    bytes a token adds to an answer, none for control tokens; `names[id]` those it is shown with.
    Characters outside the vocabulary become byte tokens.
    """

    bos: int | None = None
    add_bos = False
    strips_first_space = True

    def __init__(
        self,
        processor: sentencepiece.SentencePieceProcessor,
        n_tokens: int,
        special: Mapping[str, int],
        end_tokens: Sequence[str],
        *,
        offset: int = 0,
        has_white_space: bool = False,
    ) -> None:
        """Wrap a SentencePiece model.

        `n_tokens` is the number of the model's ids, at least as many as there are tokens.
        `offset` is added to the number of a piece to get its id. With `has_white_space`, line
        feeds, tabs and runs of spaces have pieces of their own.
        """
        self._processor = processor
        self._offset = offset
        self._has_white_space = has_white_space
        size = processor.get_piece_size()
        control = {processor.id_to_piece(i): i + offset for i in _control_pieces(processor)}
        self._special = control | dict(special)
        self._control = {token: name for name, token in self._special.items()}
        self.n_tokens = n_tokens
        self.user_defined: dict[int, str] = {}
        self.end_tokens = frozenset(self._special[name] for name in end_tokens)
        behind = n_tokens - offset - size
        texts = [self._piece(number) for number in range(size)]
        self.pieces = [b""] * offset + texts + [b""] * behind
        self.names = list(self.pieces)
        for name, token in self._special.items():
            self.pieces[token] = b""
            self.names[token] = name.encode()
        self.longest = max(map(len, self.names))

    def tokenize(self, text: bytes) -> list[int]:
        """Return the ids of a text in UTF-8; control tokens are not among them.

        Raises `InvalidRequest` for a text of which that cannot be had.
        """
        ids = self._encode(text.decode())
        if self._control.keys().isdisjoint(ids):
            return ids
        stretches = cut_names(text.decode(), self._special)
        ids = [token for stretch in stretches for token in self._encode(stretch)]
        for token in self._control.keys() & set(ids):
            raise InvalidRequest(
                f"a text may not contain {self._control[token]!r} with this model", "messages"
            )
        return ids

    def special_id(self, name: str) -> int | None:
        """Return the id of a control token: `[gMASK]`."""
        return self._special.get(name)

    def _encode(self, text: str) -> list[int]:
        if self._has_white_space:
            text = text.replace("\n", _NEW_LINE).replace("\t", _TAB)
            text = _SPACES.sub(lambda run: f"<|blank_{len(run[0])}|>", text)
        return [number + self._offset for number in self._processor.encode(text)]

    def _piece(self, number: int) -> bytes:
        """Return the bytes a piece stands for; none for the unknown one."""
        piece: str = self._processor.id_to_piece(number)
        if self._processor.is_unknown(number):
            return b""
        if self._processor.is_byte(number):
            return bytes([int(piece[3:5], 16)])  # <0x0A>
        if self._has_white_space:
            if piece in (_NEW_LINE, _TAB):
                return b"\n" if piece == _NEW_LINE else b"\t"
            if run := _BLANK.fullmatch(piece):
                return b" " * int(run[1])
        return piece.replace(_WORD_START, " ").encode()


def read_v1_tokenizer(folder: Path, config: V1Config) -> Tokenizer:
    """Read `ice_text.model`. Raises `ModelLoadError`, also if it does not fit `config.json`.

    Releases before 2023-04-06 put 20000 ids of images before those of the text. How many there
    are follows from the ids in `config.json`, so nothing depends on a release's number.
    """
    file = folder / V1_FILE
    processor = _open(file)
    numbers = {name: processor.piece_to_id(name) for name in _V1_SPECIAL}
    offset = config.bos_id - numbers[V1_BOS]
    stated = {V1_BOS: config.bos_id, V1_EOS: config.eos_id, GMASK: config.gmask_id}
    for name, token in stated.items():
        is_unknown = processor.is_unknown(numbers[name])
        if is_unknown or offset < 0 or token not in (None, numbers[name] + offset):
            raise ModelLoadError(
                f"{file} and config.json do not belong together: they differ in the id of {name}"
            )
    _check_size(file, offset + processor.get_piece_size(), config.vocab_size)
    special = {n: i + offset for n, i in numbers.items() if not processor.is_unknown(i)}
    return Tokenizer(
        processor, config.vocab_size, special, [V1_EOS], offset=offset, has_white_space=True
    )


def read_v2_tokenizer(folder: Path, config: V2Config) -> Tokenizer:
    """Read `tokenizer.model`. Raises `ModelLoadError`, also if it does not fit `config.json`."""
    file = folder / V2_FILE
    processor = _open(file)
    first = processor.get_piece_size()
    _check_size(file, first + len(_V2_SPECIAL), config.vocab_size)
    special = {name: first + index for index, name in enumerate(_V2_SPECIAL)}
    return Tokenizer(processor, config.vocab_size, special, _V2_END)


def _open(file: Path) -> sentencepiece.SentencePieceProcessor:
    if not file.is_file():
        raise ModelLoadError(f"{file} is missing: download the whole model folder")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(file))
    except RuntimeError as error:
        raise ModelLoadError(
            f"{file} is not a SentencePiece model: download it again. (GLM-4 has a file of this "
            "name in another format: get its repository with -hf in the name)"
        ) from error


def _check_size(file: Path, n_tokens: int, vocab_size: int) -> None:
    if n_tokens > vocab_size:
        raise ModelLoadError(
            f"{file} has {n_tokens} tokens, config.json room for {vocab_size}: they do not "
            "belong together"
        )


def _control_pieces(processor: sentencepiece.SentencePieceProcessor) -> list[int]:
    return [i for i in range(processor.get_piece_size()) if processor.is_control(i)]
