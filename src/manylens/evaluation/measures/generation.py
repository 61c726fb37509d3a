"""Made pictures: FID, KID and CLIP score on features that the user names.

FID is the Fréchet distance of two Gaussians (Heusel et al., NeurIPS 2017), KID the unbiased squared MMD with the cubic
kernel (Bińkowski et al., ICLR 2018); where each made picture has a real one of its own, these two are not held against
each other, for they are alike and would make the rest look alike (Gretton et al., JMLR 2012, eq. 4). CLIP score is the
cosine of picture and text, at least 0, times 100 (Hessel et al., EMNLP 2021). Figures on different features cannot be
compared: the report names the model that made them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError
from manylens.data.records import Record
from manylens.evaluation.details import table
from manylens.evaluation.measure import Measure
from manylens.evaluation.measures.driving import Rows
from manylens.evaluation.tally import FloatArray, Tally, ratio

_BLOCK = 2048  # rows of a kernel matrix at a time
_PICTURES_A_FEATURE = 10  # with fewer, a good part of FID is that there are few
_SMALL = 768  # features up to which one thread is the fastest

Features = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Made:
    """The features of one made picture.

    Attributes:
        features: ``(D,)`` of the made picture.
        real: ``(D,)`` of the real picture of the record; None where the measure has a reference.
        image: Unit vector of the made picture in a space that it shares with text, or None.
        text: Unit vector of the words it was made from, or None.
    """

    features: np.ndarray
    real: np.ndarray | None = None
    image: np.ndarray | None = None
    text: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class GenerationTally(Tally):
    """Figures of made pictures; each resample costs decompositions of ``(D, D)`` matrices (30 ms at D = 384).

    Attributes:
        made: float32 ``(n, D)``.
        real: float32 ``(m, D)``.
        paired: Whether real pictures are those of the units (m = n) and are weighed with them, or a fixed reference;
            the interval then knows nothing of how the reference was drawn.
        cosines: float64 ``(n,)`` of picture and text, NaN where unknown; empty where there is no text at all.
    """

    measure: ClassVar[str] = "generation"
    main: ClassVar[str] = "FID"
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"FID", "KID x1000"})
    recentred: ClassVar[frozenset[str]] = frozenset({"FID", "KID x1000"})
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {"FID": (0.0, np.inf)}
    resamples: ClassVar[int | None] = 200

    made: Features = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    real: Features = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    paired: bool = True
    cosines: FloatArray = field(default_factory=lambda: np.zeros(0))

    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """See :meth:`Tally.figures`."""
        with _threads(self.made.shape[1]):
            found = {"FID": np.array([self._fid(row) for row in weights])}
        found["KID x1000"] = 1000 * self._kid(weights)
        if len(self.cosines):
            known = ~np.isnan(self.cosines)
            scores = np.where(known, 100 * np.maximum(self.cosines, 0), 0.0)
            found["CLIP score"] = ratio(weights @ scores, weights @ known.astype(float))
        return found

    def details(self) -> dict[str, Any]:
        """A warning where there are too few pictures for the number of features."""
        size, least = self.made.shape[1] if self.made.ndim == 2 else 0, min(len(self.made), len(self.real))
        if least >= _PICTURES_A_FEATURE * size:
            return {}
        far = "far " if least < 2 * size else ""
        note = f"{least} pictures for {size} features: FID is {far}too high; compare at equal counts only, or read KID"
        return {"few pictures": table("Too few pictures", ["note"], [[note]])}

    def scores(self) -> FloatArray | None:
        """The cosine of picture and text."""
        return self.cosines if len(self.cosines) else None

    def _fid(self, weights: FloatArray) -> float:
        if weights.sum() <= 1 or len(self.real) < 2:
            return np.nan
        made = moments(self.made, weights)
        if not self.paired:
            return frechet(made, self._reference[:2], self._reference[2])
        return frechet(made, moments(self.real, weights))

    @cached_property
    def _reference(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        mean, covariance = moments(self.real, np.ones(len(self.real)))
        return mean, covariance, factor(covariance)

    def _kid(self, weights: FloatArray) -> FloatArray:
        others = weights if self.paired else np.ones((1, len(self.real)))
        within_real = _within(self.real, others)
        between = (
            _between_pairs(self.made, self.real, weights)
            if self.paired
            else _between(self.made, self.real, weights, others)
        )
        return _within(self.made, weights) + within_real - 2 * between


def moments(features: Features, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted mean ``(D,)`` and covariance ``(D, D)`` (over the sum of weights less 1) of ``(n, D)`` features."""
    kept = weights > 0
    rows, weight = features[kept].astype(np.float64), weights[kept]
    mean = weight @ rows / weight.sum()
    spread = (rows - mean) * np.sqrt(weight)[:, None]
    return mean, spread.T @ spread / (weight.sum() - 1)


def factor(matrix: FloatArray) -> FloatArray:
    """A square ``L`` with ``L L^T`` the symmetric matrix, which has no negative eigenvalues."""
    try:
        return np.asarray(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:  # some eigenvalues are 0: fewer pictures than features
        values, vectors = np.linalg.eigh(matrix)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


def frechet(
    a: tuple[FloatArray, FloatArray], b: tuple[FloatArray, FloatArray], factor_b: FloatArray | None = None
) -> float:
    """Squared Fréchet distance of two Gaussians: ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2)``.

    With ``C2 = L L^T``, ``C1 C2`` has the eigenvalues of ``L^T C1 L``, which is symmetric: no complex numbers arise,
    unlike with the general root of a matrix.

    Args:
        a: Mean and covariance.
        b: Likewise.
        factor_b: :func:`factor` of the covariance of b, where it is known.
    """
    half = factor(b[1]) if factor_b is None else factor_b
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(half.T @ a[1] @ half), 0)).sum()
    apart = a[0] - b[0]
    return float(apart @ apart + np.trace(a[1]) + np.trace(b[1]) - 2 * shared)


def _threads(size: int) -> AbstractContextManager[Any]:
    """One thread for small decompositions: more of them wait for one another, ten times the work at D = 384."""
    if size > _SMALL:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limited: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limited


def _kernel(a: Features, b: Features) -> FloatArray:
    return np.asarray((a.astype(np.float64) @ b.T.astype(np.float64) / a.shape[1] + 1) ** 3)


def _blocks(total: int) -> Iterator[slice]:
    for start in range(0, total, _BLOCK):
        yield slice(start, start + _BLOCK)


def _pairs(a: Features, b: Features, left: FloatArray, right: FloatArray) -> FloatArray:
    """Kernel values summed over all weighed pairs, ``(R,)``."""
    total = np.zeros(max(len(left), len(right)))
    for rows in _blocks(len(a)):
        for columns in _blocks(len(b)):
            total += ((left[:, rows] @ _kernel(a[rows], b[columns])) * right[:, columns]).sum(axis=1)
    return total


def _within(features: Features, weights: FloatArray) -> FloatArray:
    """The mean kernel of two different pictures of a set; a weight of 2 is the picture twice."""
    return _between_pairs(features, features, weights)


def _between_pairs(made: Features, real: Features, weights: FloatArray) -> FloatArray:
    """The mean kernel of made pictures and real ones of other rows; a weight of 2 is the row twice."""
    own = weights @ (np.einsum("nd,nd->n", made, real, dtype=np.float64) / max(made.shape[1], 1) + 1) ** 3
    total = weights.sum(axis=1)
    return ratio(_pairs(made, real, weights, weights) - own, np.where(total > 1, total * (total - 1), 0.0))


def _between(made: Features, real: Features, weights: FloatArray, others: FloatArray) -> FloatArray:
    return ratio(_pairs(made, real, weights, others), weights.sum(axis=1) * others.sum(axis=1))


def load_features(path: str | Path) -> Features:
    """Read saved features.

    Args:
        path: ``.npy`` of ``(n, D)``.

    Raises:
        DataError: It is no such file, or has NaN or inf.
    """
    remedy = "give a .npy of (pictures, features)"
    try:
        features = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as features ({error})", remedy) from error
    if not isinstance(features, np.ndarray) or features.ndim != 2 or features.dtype.kind not in "fiu":
        raise DataError(f"{path}: holds no table of numbers", remedy)
    if not len(features):
        raise DataError(f"{path}: holds no features", remedy)
    if not np.isfinite(features).all():
        raise DataError(f"{path}: has NaN or inf", "make the features again")
    return features.astype(np.float32)


@dataclass
class Generation(Measure):
    """Judges :class:`Made`.

    Args:
        reference: float32 ``(m, D)`` of real pictures; None where each record brings the features of its own.
    """

    name: ClassVar[str] = "generation"

    reference: Features | None = None

    def __post_init__(self) -> None:
        self._units = Rows("image", self.columns)
        self._made: list[np.ndarray] = []
        self._real: list[np.ndarray] = []
        self._cosines: list[float] = []

    def add(self, record: Record, prediction: Made | None) -> None:
        """See :meth:`Measure.add`; a record for which nothing was made is left out, and said to be."""
        if prediction is None:
            self.problems.add("missing prediction", record.id, f"{record.id}: nothing was made; left out")
            return
        real = prediction.real if self.reference is None else self.reference[0]
        if real is None:
            self.problems.add("no real picture", record.id, f"{record.id}: no features of a real picture; left out")
            return
        size = len(self._made[0]) if self._made else len(real)
        if len(prediction.features) != size or len(real) != size:
            what = f"{record.id}: {len(prediction.features)} features against {len(real)} of real pictures; left out"
            self.problems.add("another space", record.id, what)
            return
        if not (np.isfinite(prediction.features).all() and np.isfinite(real).all()):
            self.problems.add("NaN features", record.id, f"{record.id}: features have NaN or inf; left out")
            return
        self._units.add(record.id, record.id, record, None, {})
        self._made.append(np.asarray(prediction.features, np.float32))
        if self.reference is None:
            self._real.append(np.asarray(real, np.float32))
        self._cosines.append(_cosine(prediction.image, prediction.text))

    def tally(self) -> GenerationTally:
        """See :meth:`Measure.tally`."""
        cosines = np.array(self._cosines)
        return GenerationTally(
            self._units.units(),
            made=_stacked(self._made),
            real=_stacked(self._real) if self.reference is None else self.reference,
            paired=self.reference is None,
            cosines=cosines if not np.isnan(cosines).all() else np.zeros(0),
        )


def _stacked(rows: list[np.ndarray]) -> Features:
    return np.array(rows, np.float32) if rows else np.zeros((0, 0), np.float32)


def _cosine(a: np.ndarray | None, b: np.ndarray | None) -> float:
    if a is None or b is None:
        return np.nan
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.dot(a, b)) / lengths if lengths else 0.0
