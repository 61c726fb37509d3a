"""Words to the numbers that SAM 3's text tower reads. A text that is too long is refused, never cut in silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from manylens.errors import PromptError, WeightsError

_SHOWN = 40


class Tokens:
    """The tokenizer of a checkpoint: CLIP's byte pairs, with a start and an end.

    Args:
        files: The checkpoint's files by name.
        name: What to call the checkpoint in an error.
        most: How many tokens the text tower reads.
    """

    def __init__(self, files: Mapping[str, Path], name: str, most: int) -> None:
        self._name, self._most = name, most
        self._tokenizer = _tokenizer(files, name)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def __call__(self, text: str) -> tuple[np.ndarray, int]:
        """Token ids int64 ``(1, most)``, padded with the last one, and how many of them are the text's.

        Raises:
            PromptError: The text is longer than the tower reads.
        """
        ids = self._tokenizer.encode(text).ids
        if len(ids) > self._most:
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
            raise PromptError(
                f"text {shown!r}: is {len(ids)} tokens long and {self._name} reads at most {self._most}",
                "say it in fewer words",
            )
        return np.array([ids + ids[-1:] * (self._most - len(ids))], np.int64), len(ids)


def _tokenizer(files: Mapping[str, Path], name: str) -> Any:
    if "tokenizer.json" not in files:
        raise WeightsError(f"{name}: the folder has no tokenizer.json", "give the whole checkpoint")
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(files["tokenizer.json"]))
    except Exception as error:  # the library raises plain Exception
        raise WeightsError(f"{name}: its tokenizer.json is damaged", "fetch the checkpoint again") from error
