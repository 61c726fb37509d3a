"""Words to the numbers that a text tower reads. A text that is too long is refused, never cut in silence."""

from __future__ import annotations

import string
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from manylens.errors import PromptError, WeightsError
from manylens.models import checkpoint

_SHOWN = 40
_REMEDY = "give the whole checkpoint"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


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
        self._form = _form(self.kind, settings)
        if self._fixed:
            _add_ends(self._tokens, settings)
        self._pad = self._number(settings.get("pad_token"), text.get("pad_token_id", 1 if self._fixed else 0))
        if self.kind == "clip" or self.kind == "clipseg":
            # Whatever is behind the end token is not looked at; the end token itself is what CLIP pads with.
            self._pad = self._number(settings.get("eos_token"), text.get("eos_token_id", self._pad))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Token ids int64 ``(N, L)``.

        Raises:
            PromptError: A text is longer than the tower reads.
        """
        texts = list(texts)
        encoded = self._tokens.encode_batch([self._form(text) for text in texts])
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
        found = self._tokens.token_to_id(_content(token)) if token else None
        return default if found is None else found


def _content(token: Any) -> Any:
    """A token's own letters, from either form in which a file gives it."""
    return token["content"] if isinstance(token, Mapping) else token


def _form(kind: str, settings: Mapping[str, Any]) -> Callable[[str], str]:
    """How a text is written before it is cut into tokens; a file of tokens need not say so.

    SigLIP was trained without punctuation. SigLIP 2 was trained on small letters, also where its pictures are of one
    size, and its config then says ``siglip``: its tokenizer, Gemma's, tells it.
    """
    made = str(settings.get("tokenizer_class", "")).removesuffix("Fast")
    if kind == "siglip2" or (kind == "siglip" and made in ("GemmaTokenizer", "Siglip2Tokenizer")):
        return str.lower
    if made == "SiglipTokenizer":
        return partial(_plain, small=bool(settings.get("do_lower_case", True)))
    return str


def _plain(text: str, *, small: bool) -> str:
    """Without punctuation, one blank between words."""
    return " ".join((text.lower() if small else text).translate(_NO_PUNCTUATION).split())


def _add_ends(tokens: Any, settings: Mapping[str, Any]) -> None:
    """Put the begin and end tokens where the settings ask for them, whatever the file of tokens does by itself."""
    if "add_bos_token" not in settings and "add_eos_token" not in settings:
        return
    from tokenizers.processors import TemplateProcessing

    before, after = (_end(tokens, settings, end) for end in ("bos", "eos"))
    known = [(token, tokens.token_to_id(token)) for token in {*before, *after}]
    tokens.post_processor = TemplateProcessing(single=[*before, "$A", *after], special_tokens=known)


def _end(tokens: Any, settings: Mapping[str, Any], end: str) -> list[str]:
    token = _content(settings.get(f"{end}_token"))
    wanted = settings.get(f"add_{end}_token") and token and tokens.token_to_id(token) is not None
    return [token] if wanted else []


def _settings(files: Mapping[str, Path]) -> bool:
    return "tokenizer_config.json" in files


_VOCABULARIES = ({"vocab.json", "merges.txt"}, {"spiece.model"})
"""What an older checkpoint has instead of ``tokenizer.json``."""


def _tokenizer(files: Mapping[str, Path], name: str) -> Any:
    if "tokenizer.json" in files:
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(files["tokenizer.json"]))
        except Exception as error:  # the library's own, without a class
            raise WeightsError(f"{name}: its tokenizer.json does not load ({error})", _REMEDY) from error
    # transformers makes an empty tokenizer, without a word, where there is no vocabulary.
    if not any(vocabulary <= files.keys() for vocabulary in _VOCABULARIES):
        raise WeightsError(f"{name}: the folder has no tokenizer.json", _REMEDY)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(files["config.json"].parent, local_files_only=True).backend_tokenizer
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise WeightsError(f"{name}: its tokenizer does not load ({error})", _REMEDY) from error
