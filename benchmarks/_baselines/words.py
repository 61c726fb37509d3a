"""A small tokenizer for text towers: whole words, a begin and an end token, as a ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = (
    *("a", "photo", "of", ".", "this", "is", "cat", "dog", "cup", "red", "blue", "the", "on"),
    *("left", "right", "two", "many", "very", "small", "big", "thing"),
)
PAD, START, END, UNKNOWN = "<pad>", "<start>", "<end>", "<unknown>"
VOCABULARY = {word: i for i, word in enumerate([PAD, UNKNOWN, *WORDS, START, END])}
"""The end token has the highest number, as CLIP's has."""


def write(folder: Path, *, pad: str = END) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokens = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNKNOWN))
    tokens.normalizer = normalizers.Lowercase()
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(START, VOCABULARY[START]), (END, VOCABULARY[END])]
    tokens.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    tokens.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"pad_token": pad, "eos_token": END, "bos_token": START, "unk_token": UNKNOWN})
    )
