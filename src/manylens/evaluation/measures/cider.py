"""CIDEr-D, how well a caption agrees with what several people wrote (Vedantam, Zitnick & Parikh, CVPR 2015).

No light kept package has it, so it stands here, after the paper: 1- to 4-grams weighed by how rare they are among the
pictures, counts clipped to those of the reference (against repetition), a Gaussian penalty on the difference in length
(sigma 6), times 10. Words are lower-cased, punctuation is dropped and clitics are split off as in the Penn Treebank
("it's" is "it", "'s"), as the reference evaluation does with a tokenizer in Java; rare tokens may be cut otherwise.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from manylens.evaluation.tally import FloatArray

ORDERS = 4
SIGMA = 6.0
_WORD = re.compile(r"n't\b|'(?:s|re|ve|ll|d|m)\b|\w+?(?=n't\b)|\w+(?:-\w+)*")

Gram = tuple[str, ...]
_Counts = tuple["Counter[Gram]", ...]  # one for each order


def words(text: str) -> list[str]:
    """The tokens of a caption: lower case, without punctuation."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """Score each caption against the references of its picture.

    Args:
        captions: One for each of n pictures.
        references: One or more for each picture. Together they say how rare an n-gram is.

    Returns:
        ``(n,)`` in 0..10. With a single picture every n-gram is as common as can be and the score is 0.
    """
    pictures_with: Counter[Gram] = Counter()
    for several in references:  # counted again below: to keep the counts would take a gigabyte for 100,000 captions
        pictures_with.update({gram for text in several for order in _counts(words(text)) for gram in order})
    total = math.log(max(1, len(references)))

    def vector(counts: _Counts) -> list[dict[Gram, float]]:
        return [
            {gram: count * (total - math.log(max(1, pictures_with[gram]))) for gram, count in order.items()}
            for order in counts
        ]

    scores = np.zeros(len(captions))
    for i, (caption, several) in enumerate(zip(captions, references, strict=True)):
        found = _counts(words(caption))
        ours, length = vector(found), found[0].total()
        truths = [_counts(words(text)) for text in several]
        against = [_similarity(ours, vector(counts), length - counts[0].total()) for counts in truths]
        scores[i] = 10.0 * float(np.mean(against)) if against else math.nan
    return scores


def _counts(tokens: Sequence[str]) -> _Counts:
    return tuple(
        Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1)) for order in range(1, ORDERS + 1)
    )


def _similarity(ours: list[dict[Gram, float]], theirs: list[dict[Gram, float]], longer: int) -> float:
    """The clipped cosine of each order, their mean, less the penalty on length."""
    cosines = []
    for a, b in zip(ours, theirs, strict=True):
        dot = sum(min(weight, b[gram]) * b[gram] for gram, weight in a.items() if gram in b)
        norms = math.sqrt(sum(w * w for w in a.values()) * sum(w * w for w in b.values()))
        cosines.append(dot / norms if norms else 0.0)
    return float(np.mean(cosines)) * math.exp(-(longer**2) / (2 * SIGMA**2))
