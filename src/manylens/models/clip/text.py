"""Words to the numbers that a text tower reads. A text that is too long is refused, never cut in silence."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from manylens.errors import PromptError, WeightsError
from manylens.models import checkpoint

_SHOWN = 40


@cache
def template(kind: str) -> str:
    """The sentence that a class name is put into: ``"a photo of a {}."``, by ``model_type``."""
    return tomllib.loads(resources.files(__package__).joinpath("templates.toml").read_text("utf-8"))[kind]


class Tokens:
    """The tokenizer of a CLIP-like checkpoint.

    CLIP reads up to 77 tokens and takes the end token's state; SigLIP always reads its whole length, padded, and takes
    the last state.

    Args:
        files: The checkpoint's files by name.
        name: What to call the checkpoint in an error.
    """

    def __init__(self, files: Mapping[str, Path], name: str) -> None:
        self._name = name
        config = checkpoint.config(files, name)
        text = config.get("text_config", {})
        self.kind: str = config["model_type"]
        self._fixed = self.kind.startswith("siglip")
        self.most: int = text.get("max_position_embeddings", 64 if self._fixed else 77)
        self._tokens: Any = _tokenizer(files, name)
        self._tokens.no_truncation()
        self._tokens.no_padding()
        settings = checkpoint.config(files, name, "tokenizer_config.json") if _settings(files) else {}
        self._pad = self._number(settings.get("pad_token"), text.get("pad_token_id", 1 if self._fixed else 0))
        if self.kind == "clip" or self.kind == "clipseg":
            # Whatever is behind the end token is not looked at; the end token itself is what CLIP pads with.
            self._pad = self._number(settings.get("eos_token"), text.get("eos_token_id", self._pad))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Token ids int64 ``(N, L)``.

        Raises:
            PromptError: A text is longer than the tower reads.
        """
        # SigLIP 2 was trained on small letters; its tokenizer file does not say so.
        texts = [text.lower() for text in texts] if self.kind == "siglip2" else list(texts)
        encoded = self._tokens.encode_batch(texts)
        longest = max(len(one.ids) for one in encoded)
        for text, one in zip(texts, encoded, strict=True):
            if len(one.ids) > self.most:
                shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
                raise PromptError(
                    f"text {shown!r}: {len(one.ids)} tokens, and {self._name} reads at most {self.most}",
                    "say it in fewer words",
                )
        ids = np.full((len(texts), self.most if self._fixed else longest), self._pad, np.int64)
        for row, one in zip(ids, encoded, strict=True):
            row[: len(one.ids)] = one.ids
        return ids

    def _number(self, token: Any, default: int) -> int:
        found = self._tokens.token_to_id(token["content"] if isinstance(token, Mapping) else token) if token else None
        return default if found is None else found


def _settings(files: Mapping[str, Path]) -> bool:
    return "tokenizer_config.json" in files


_VOCABULARIES = ({"vocab.json", "merges.txt"}, {"spiece.model"})
"""What an older checkpoint has instead of ``tokenizer.json``."""


def _tokenizer(files: Mapping[str, Path], name: str) -> Any:
    if "tokenizer.json" in files:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(files["tokenizer.json"]))
    # transformers makes an empty tokenizer, without a word, where there is no vocabulary.
    if not any(vocabulary <= files.keys() for vocabulary in _VOCABULARIES):
        raise WeightsError(f"{name}: the folder has no tokenizer.json", "give the whole checkpoint")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(files["config.json"].parent, local_files_only=True).backend_tokenizer
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise WeightsError(f"{name}: its tokenizer does not load ({error})", "give the whole checkpoint") from error
