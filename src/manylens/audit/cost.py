"""What a job will cost, measured on a few pictures before it runs; and afterwards, by the ledger, what it did cost."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from manylens.errors import UnsupportedError, UserError
from manylens.media import Image, atomic_write
from manylens.runtime import flops
from manylens.runtime.ledger import utc_now
from manylens.runtime.memory import peak_resident_bytes
from manylens.runtime.rates import Rates
from manylens.tasks import get, provenance_of, request
from manylens.tasks.requests import ImageRequest

if TYPE_CHECKING:
    from manylens.session import Session

SAMPLES = 5
SIZE = (640, 480)
_PROMPTS: dict[str, Callable[[Image], dict[str, Any]]] = {
    "segment": lambda image: {"points": [(image.width / 2, image.height / 2)]},
    "answer": lambda image: {"question": "What is it?"},
    "match": lambda image: {"text": "a photograph"},
    "edit": lambda image: {"instruction": "make it brighter"},
}
FineTune = Literal["full", "frozen"]


@dataclass(frozen=True)
class CostEstimate:
    """What a job is expected to take.

    Attributes:
        task: What is done with each picture.
        model: With which model.
        job: ``inference``, ``fine-tuning (full)`` or ``fine-tuning (frozen)``.
        images: How many pictures.
        epochs: How often each is seen; 1 for inference.
        size: Width and height of the pictures that were measured on.
        samples: How many were measured.
        load_seconds: Until the model was ready.
        each_seconds: Median time for a picture that was never seen before.
        spread_seconds: Shortest and longest time for one.
        flops: Operations for a picture; a multiplication with its addition counts as two. None where not counted.
        peak_bytes: Largest resident memory of the process.
        seconds: Of the whole job.
        energy: Kilowatt-hours; 0 where no power was given.
        co2: Kilograms; 0 where no rate was given.
        money: At the rates that were given.
        rates: These.
        engine: Engine and precision.
        made: When it was measured; calls after it are compared with it.
    """

    task: str
    model: str
    job: str
    images: int
    epochs: int
    size: tuple[int, int]
    samples: int
    load_seconds: float
    each_seconds: float
    spread_seconds: tuple[float, float]
    flops: int | None
    peak_bytes: int
    seconds: float
    energy: float
    co2: float
    money: float
    rates: Rates = field(default_factory=Rates)
    engine: str = ""
    made: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain."""
        return asdict(self)

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, for :func:`compare` after the job."""
        return atomic_write(path, json.dumps(self.to_json(), indent=1).encode())

    @staticmethod
    def load(path: str | Path) -> CostEstimate:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: It is no such file.
        """
        try:
            body = json.loads(Path(path).read_text(encoding="utf-8"))
            rates = Rates(**body.pop("rates"))
            pairs = {name: tuple(body.pop(name)) for name in ("size", "spread_seconds")}
            return CostEstimate(**body, **pairs, rates=rates)  # type: ignore[arg-type]
        except FileNotFoundError as error:
            raise UserError(f"{path}: there is no such file", "write one with manylens cost -o FILE") from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}: not an estimate ({error})", "write one with manylens cost -o FILE") from error


@dataclass(frozen=True)
class Compared:
    """An estimate beside what the ledger has of the job.

    Attributes:
        estimate: What was expected.
        calls: How many calls ended well since then.
        failed: How many did not.
        each_seconds: Mean time of those that ended well.
        seconds: Of all.
        money: That was charged for all; at the estimate's rates where nothing was.
    """

    estimate: CostEstimate
    calls: int
    failed: int
    each_seconds: float
    seconds: float
    money: float

    @property
    def ratio(self) -> float:
        """Time a picture took by the time that was expected."""
        return self.each_seconds / self.estimate.each_seconds if self.estimate.each_seconds else math.nan

    def to_json(self) -> dict[str, Any]:
        """Plain."""
        return {**asdict(self), "ratio": self.ratio}


def estimate(
    task: str,
    *,
    images: int,
    model: str | None = None,
    pictures: Sequence[Any] = (),
    size: tuple[int, int] = SIZE,
    session: Session | None = None,
    rates: Rates | None = None,
    fine_tune: FineTune | None = None,
    epochs: int = 1,
    batch: int = 8,
    samples: int = SAMPLES,
    seed: int = 0,
) -> CostEstimate:
    """Measure what a job over many pictures will cost, on a few.

    Each picture that is measured is a new one to the caches, as those of the job will be.

    Args:
        task: A task over pictures.
        images: How many pictures the job has.
        model: A catalog id, hub id or folder; None lets the session choose.
        pictures: Pictures of the job to measure on; none for made ones.
        size: Width and height of the made ones.
        session: Runs it; default the package's.
        rates: What time costs; default the session's.
        fine_tune: ``full``: forward, backward and an optimiser's step for all weights; ``frozen``: the encoder runs
            once for each picture and its features are kept, a head on them is not counted. None for inference.
        epochs: Of fine-tuning.
        batch: Pictures in a step of fine-tuning.
        samples: How many pictures, or steps, are measured.
        seed: Of the made pictures.

    Raises:
        UserError: A number makes no sense, or the task takes no picture.
        UnsupportedError: The model cannot be fine-tuned.
    """
    from manylens.session import default_session

    declared = get(task)
    if not issubclass(declared.request, ImageRequest) and task != "embed":
        raise UserError(
            f"{task}: its cost cannot be measured on pictures", "name a task over pictures, such as segment"
        )
    for name, number in (("images", images), ("epochs", epochs), ("batch", batch), ("samples", samples)):
        if number < 1:
            raise UserError(f"{name} {number}: less than 1", "give a number of 1 or more")
    session = session or default_session()
    rates = rates or session.rates
    stock = _pictures(pictures, size, seed)
    if fine_tune is None:
        measured = _inference(session, task, model, stock, samples)
        steps, epochs = images, 1
    else:
        measured = _training(session, task, model, stock, samples, fine_tune, batch)
        epochs = 1 if fine_tune == "frozen" else epochs
        steps = math.ceil(images / batch) * batch * epochs
    seconds = measured.load + measured.each * steps
    energy = rates.energy(seconds)
    return CostEstimate(
        task=task,
        model=measured.model,
        job="inference" if fine_tune is None else f"fine-tuning ({fine_tune})",
        images=images,
        epochs=epochs,
        size=measured.size,
        samples=samples,
        load_seconds=measured.load,
        each_seconds=measured.each,
        spread_seconds=measured.spread,
        flops=measured.flops,
        peak_bytes=peak_resident_bytes(),
        seconds=seconds,
        energy=energy,
        co2=energy * rates.co2,
        money=rates.money(seconds),
        rates=rates,
        engine=measured.engine,
        made=utc_now(),
    )


def compare(made: CostEstimate, session: Session | None = None) -> Compared:
    """What the calls since an estimate took, as the ledger has it.

    Raises:
        UserError: The ledger has no such call since then.
    """
    from manylens.session import default_session

    rows = (session or default_session()).ledger.rows(None, task=made.task, model=made.model, since=made.made)
    outer = [row for row in rows if not row.parent]
    good = [row.seconds for row in outer if row.outcome == "ok"]
    if not good:
        raise UserError(
            f"{made.task} on {made.model}: no call since {made.made} in the ledger", "compare after the job has run"
        )
    seconds = sum(row.seconds for row in outer)
    return Compared(
        estimate=made,
        calls=len(good),
        failed=len(outer) - len(good),
        each_seconds=statistics.fmean(good),
        seconds=seconds,
        money=sum(row.cost for row in outer) or made.rates.money(seconds),
    )


@dataclass(frozen=True)
class _Measured:
    model: str
    size: tuple[int, int]
    load: float
    each: float
    spread: tuple[float, float]
    flops: int | None
    engine: str


def _inference(session: Session, task: str, model: str | None, stock: Iterator[Image], samples: int) -> _Measured:
    def call(image: Image) -> Any:
        return session.run(request(task, image=image, **_PROMPTS.get(task, lambda _: {})(image)), model=model)

    first_seconds, result = _timed(call, next(stock))
    times = []
    for _ in range(samples):
        image = next(stock)
        times.append(_timed(call, image)[0])
    with flops.counting() as counted:
        image = next(stock)
        call(image)
    each = statistics.median(times)
    made = provenance_of(result)
    assert made is not None
    ran = {" ".join((part["engine"], part["precision"])).strip() for part in made.parts}
    return _Measured(
        model=made.model,
        size=image.size,
        load=max(0.0, first_seconds - each),
        each=each,
        spread=(min(times), max(times)),
        flops=counted.total if counted.complete and counted.total else None,
        engine=" ".join(filter(None, (made.engine, made.precision))) or ", ".join(sorted(filter(None, ran))),
    )


def _training(
    session: Session,
    task: str,
    model: str | None,
    stock: Iterator[Image],
    samples: int,
    how: FineTune,
    batch: int,
) -> _Measured:
    import torch

    if model is None:
        raise UserError(f"{task}: which model shall be fine-tuned is not said", "name it with --model")
    start = time.perf_counter()
    with session.module(model) as parts:
        load = time.perf_counter() - start
        optimiser = torch.optim.AdamW(parts.module.parameters(), lr=0.0)  # a step that changes nothing costs the same
        images = [next(stock) for _ in range(batch)]

        def step(_: Any) -> None:
            pixels = parts.preprocess(images)
            if how == "frozen":
                with torch.no_grad():
                    parts.forward(pixels)
                return
            outputs = parts.forward(pixels)
            floats = [value for value in outputs.values() if torch.is_tensor(value) and value.requires_grad]
            if not floats:
                raise UnsupportedError(f"{model}: has no gradient to fine-tune by", "name another model")
            torch.stack([value.float().pow(2).mean() for value in floats]).sum().backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        step(None)
        times = [_timed(step, None)[0] / batch for _ in range(samples)]
        with flops.counting() as counted:
            step(None)
    return _Measured(
        model=session.catalog.resolve(model).id,
        size=images[0].size,
        load=load,
        each=statistics.median(times),
        spread=(min(times), max(times)),
        flops=counted.total // batch if counted.total else None,
        engine="torch f32",
    )


def _timed(call: Callable[[Any], Any], value: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call(value)
    return time.perf_counter() - start, result


def _pictures(given: Sequence[Any], size: tuple[int, int], seed: int) -> Iterator[Image]:
    """Pictures without end, no two alike: one pixel differs, so that no cache knows them."""
    known = [Image.of(one).array for one in given] or [_made(size, seed)]
    mark = np.random.default_rng([seed, time.time_ns()])
    number = 0
    while True:
        pixels = np.array(known[number % len(known)])
        pixels[0, 0] = mark.integers(0, 256, 3)
        pixels[-1, -1] = mark.integers(0, 256, 3)
        yield Image.of(pixels)
        number += 1


def _made(size: tuple[int, int], seed: int) -> np.ndarray:
    """A picture of soft coloured shapes, RGB uint8."""
    import cv2

    width, height = size
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
