"""Made examples for small classes, on embeddings: SMOTE and kin, by imbalanced-learn.

Each class is brought to the number of the largest. The classes are made one by one, each with as many neighbours as it
has and with random numbers of its own, so that what is made for one class does not hang on another.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.training.balance import names
from manylens.training.errors import TrainError
from manylens.training.extras import need

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_AROUND = 10  # neighbours of any class that say whether an example is in danger (imbalanced-learn's own number)


@dataclass(frozen=True, eq=False)
class Resampled:
    """Embeddings with what was made and without what was taken out.

    Attributes:
        vectors: float32 or float64 ``(M, D)``: the real ones in their order, then the made ones.
        labels: int64 ``(M,)``.
        made: bool ``(M,)``, whether it was made.
        rows: int64 ``(M,)``, which of the given embeddings it is; -1 where it was made.
        notes: What did not go as asked, one line each.
    """

    vectors: FloatArray
    labels: IntArray
    made: BoolArray
    rows: IntArray
    notes: tuple[str, ...]


def resample(
    kind: str,
    vectors: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    seed: int,
    neighbours: int = 5,
    classes: Sequence[str] | None = None,
) -> Resampled:
    """Make embeddings for each class that is smaller than the largest.

    - ``smote``: between an example and one of its nearest neighbours of its class (Chawla et al., 2002).
    - ``borderline_smote``: only from examples with half or more, but not all, neighbours of other classes (Han et al.,
      2005). ``adasyn``: the more, the more neighbours are of other classes (He et al., 2008). ``svm_smote``: from
      support vectors, also away from their neighbours (Nguyen et al., 2011). Where one of them makes fewer than are
      missing, SMOTE makes the rest, and a note says so; ``adasyn`` may make some more than are missing.
    - ``smote_enn``, ``smote_tomek``: SMOTE, then examples are taken out, real ones too: those whose three nearest
      neighbours are not all of their class, or pairs of two classes that are each other's nearest (Batista et al.,
      2004). A class that would be lost so keeps all it has.

    A class with fewer examples than neighbours has all of its others as neighbours; one of a single example is copied.

    Args:
        kind: One of :data:`manylens.training.balance.names.SYNTHETICS`.
        vectors: ``(N, D)``, finite; float64 stays, all else becomes float32.
        labels: ``(N,)``, numbers of classes.
        seed: Of the random numbers, from 0.
        neighbours: Of the same class, at least 1.
        classes: Names of the classes, for notes; by default their numbers.

    Raises:
        TrainError: There is no such kind, an embedding is not finite, or the shapes do not fit.
        EngineError: imbalanced-learn is not installed.
    """
    names.check_name("synthetic", kind, names.SYNTHETICS)
    given, numbers = _checked(vectors, labels, neighbours)

    def called(label: int) -> str:
        return str(label) if classes is None else repr(classes[label])

    maker = _MAKERS.get(kind, "SMOTE")
    found, counts = np.unique(numbers, return_counts=True)
    notes: list[str] = []
    parts, of = [given], [numbers]
    for label, count in zip(found.tolist(), counts.tolist(), strict=True):
        missing = int(counts.max()) - count
        if not missing:
            continue
        made, note = _made(maker, given, numbers, label, missing, neighbours, seed)
        notes += [f"class {called(label)}: {note}"] if note else []
        parts.append(made)
        of.append(np.full(len(made), label))
    rows = np.concatenate([np.arange(len(given)), np.full(sum(map(len, parts[1:])), -1)]).astype(np.int64)
    whole, whole_labels = np.concatenate(parts), np.concatenate(of).astype(np.int64)
    if kind in _CLEANERS:
        keep, lost = _cleaned(_CLEANERS[kind], whole, whole_labels)
        notes += [f"class {called(one)}: cleaning would have taken all of it, so it keeps what it has" for one in lost]
        whole, whole_labels, rows = whole[keep], whole_labels[keep], rows[keep]
    return Resampled(whole, whole_labels, rows < 0, rows, tuple(notes))


def _checked(vectors: npt.ArrayLike, labels: npt.ArrayLike, neighbours: int) -> tuple[FloatArray, IntArray]:
    given, numbers = np.asarray(vectors), np.asarray(labels)
    given = given if given.dtype == np.float64 else given.astype(np.float32)
    if given.ndim != 2 or not len(given) or numbers.shape != (len(given),):
        raise TrainError(
            f"embeddings: have the shape {given.shape} and labels {numbers.shape}", "give (N, D) and (N,), N at least 1"
        )
    if not np.issubdtype(numbers.dtype, np.integer) or (numbers < 0).any():
        raise TrainError("labels: are not all numbers of classes", "give integers from 0")
    wrong = np.flatnonzero(~np.isfinite(given).all(axis=1))
    if wrong.size:
        raise TrainError(f"embeddings: number {wrong[0]} is not finite", "leave it out, or embed it again")
    if neighbours < 1:
        raise TrainError(f"synthetic_neighbours: {neighbours} is out of range", "give 1 or more")
    return given, numbers.astype(np.int64)


def _made(
    maker: str, given: FloatArray, numbers: IntArray, label: int, missing: int, neighbours: int, seed: int
) -> tuple[FloatArray, str]:
    """What is made for one class, and what did not go as asked."""
    own = given[numbers == label]
    if len(own) == 1:
        return np.repeat(own, missing, axis=0), f"has one example, which was copied {missing} times"
    near = min(neighbours, len(own) - 1)
    note = "" if near == neighbours else f"has {len(own)} examples, so {near} neighbours were taken, not {neighbours}"
    made = _made_by(maker, given, numbers, label, missing, near, np.random.RandomState(_seed(seed, label, 0)))
    if len(made) < missing:
        rest = missing - len(made)
        note += f"{'; ' if note else ''}{maker} made {len(made)} of {missing}, SMOTE the rest"
        random = np.random.RandomState(_seed(seed, label, 1))
        made = np.concatenate([made, _made_by("SMOTE", given, numbers, label, rest, near, random)])
    return made, note


def _made_by(
    maker: str,
    given: FloatArray,
    numbers: IntArray,
    label: int,
    missing: int,
    near: int,
    random: np.random.RandomState,
) -> FloatArray:
    library = need("imblearn.over_sampling")
    # A generator, not its seed: the library starts a seed anew for each of its draws, and they would be alike.
    options: dict[str, Any] = {
        "sampling_strategy": {label: int((numbers == label).sum()) + missing},
        "random_state": random,
        "n_neighbors" if maker == "ADASYN" else "k_neighbors": near,
    }
    if maker in ("BorderlineSMOTE", "SVMSMOTE"):
        options["m_neighbors"] = min(_AROUND, len(given) - 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a class becomes larger than the largest, by adasyn
            whole, _ = getattr(library, maker)(**options).fit_resample(given, numbers)
    except (RuntimeError, ValueError):
        if maker not in ("ADASYN", "SVMSMOTE"):
            raise
        return given[:0]  # they say so that no example is near another class, or that all support vectors are noise
    made: FloatArray = whole[len(given) :].astype(given.dtype)
    return made


def _cleaned(cleaner: str, vectors: FloatArray, labels: IntArray) -> tuple[IntArray, list[int]]:
    """Numbers of what stays, ascending, and the classes that would have been lost."""
    if len(np.unique(labels)) < 2:
        return np.arange(len(labels)), []
    options = {"n_neighbors": min(3, len(labels) - 1)} if cleaner == "EditedNearestNeighbours" else {}
    made = getattr(need("imblearn.under_sampling"), cleaner)(sampling_strategy="all", **options)
    made.fit_resample(vectors, labels)
    keep = np.zeros(len(labels), dtype=bool)
    keep[made.sample_indices_] = True
    lost = sorted(set(labels.tolist()) - set(labels[keep].tolist()))
    keep |= np.isin(labels, lost)
    return np.flatnonzero(keep), lost


def _seed(seed: int, label: int, again: int) -> Any:
    return np.random.SeedSequence([seed, label, again]).generate_state(8)


_MAKERS = {
    "borderline_smote": "BorderlineSMOTE",
    "adasyn": "ADASYN",
    "svm_smote": "SVMSMOTE",
}
_CLEANERS = {"smote_enn": "EditedNearestNeighbours", "smote_tomek": "TomekLinks"}
