"""For information: how much faster the engine that `manylens doctor` chooses runs the encoder than torch in float32.

Peer: torch, float32, eager, the same network and threads.
Measured: as doctor measures it on this machine, in a home of its own: the candidates take turns, the median of 5 after
one that does not count. A candidate may be chosen only when its features keep a mean cosine of 0.99 to those of f32.
"""

from __future__ import annotations

from benchmarks._claims import Options, Outcome, Part
from benchmarks._harness import fresh_home

GOAL = "the engine chosen is no slower than torch f32 (for information)"
MODEL = "manylens/vit-s"


def run(options: Options) -> Outcome:
    """Measure the encoder of patches and vectors on every engine."""
    from manylens.models import FamilyProbe
    from manylens.runtime.doctor import choose
    from manylens.session import Session

    with fresh_home() as home, Session(home=home) as session:
        row = session.catalog.resolve(MODEL)
        choice = choose(FamilyProbe(row, session.weights.ensure(row)))
    seconds = {each.settings.label: each.seconds for each in choice.measurements if each.seconds is not None}
    chosen = choice.settings.label
    return Outcome(
        [Part("a batch through the encoder", seconds[chosen], seconds.get("torch f32"), "s", 1.0, "ratio")],
        notes={
            "chosen": chosen,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "similarity": {e.settings.label: round(e.similarity, 5) for e in choice.measurements if e.similarity},
        },
    )
