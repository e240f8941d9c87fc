"""Where ChatGLM-6B places its tokens: two position numbers for each.

The prompt is numbered from 0 and has block position 0. `<sop>`, its last token, and everything
generated after it share the position of `[gMASK]`, the token before `<sop>`, and are numbered
from 1 by block position.
"""

from __future__ import annotations


def block_positions(prompt_length: int, start: int, stop: int) -> tuple[list[int], list[int]]:
    """Return positions and block positions of the tokens `start` to `stop`, `stop` excluded.

    `prompt_length` is in tokens, `[gMASK]` and `<sop>` included. It decides where the answer
    begins, and not the first `<sop>` in the ids as in the authors' code, so that nothing inside
    a prompt can move the border.
    """
    border = prompt_length - 1
    mask = max(border - 1, 0)
    tokens = range(start, stop)
    return (
        [token if token < border else mask for token in tokens],
        [max(token - border + 1, 0) for token in tokens],
    )
