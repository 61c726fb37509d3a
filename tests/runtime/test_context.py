import threading
import time

import numpy as np
import pytest

from manylens.errors import CancelledError, CostError, DeadlineError, UnsupportedError
from manylens.runtime.context import Context
from manylens.runtime.store import Key


def test_nothing_stops_a_plain_context() -> None:
    context = Context()
    context.check()
    context.spend(1e9)
    context.progress(0.5, "half")
    context.store.put(Key("p", "w", "v", "l", "e", "f"), {"a": np.zeros(1)})


@pytest.mark.parametrize(
    ("context", "error"),
    [
        (Context(deadline=time.monotonic() - 1), DeadlineError),
        (Context(deadline=time.monotonic() + 1e9), None),
        (Context(cost_cap=0), None),
    ],
)
def test_check(context: Context, error: type[Exception] | None) -> None:
    for each in (context, context.child(), context.child(deadline=None)):
        if error is None:
            each.check()
        else:
            with pytest.raises(error):
                each.check()


def test_cancel() -> None:
    context = Context()
    context.cancel.set()
    with pytest.raises(CancelledError):
        context.check()
    with pytest.raises(CancelledError):
        context.child().check()


def test_spending_stops_at_the_cap() -> None:
    context = Context(cost_cap=2)
    context.spend(2)
    with pytest.raises(CostError, match=r"stopped at its cost cap, 2.5 of 2"):
        context.spend(0.5)
    with pytest.raises(CostError):
        context.check()


def test_a_child_spends_of_its_parent() -> None:
    parent = Context(cost_cap=3)
    child = parent.child(cost_cap=10).child()
    child.spend(3)
    assert (child.spent, parent.spent) == (3, 3)
    with pytest.raises(CostError, match="4 of 3"):
        child.spend(1)


def test_a_child_has_its_own_notes_and_the_rest_of_its_parent() -> None:
    parent = Context(seed=5, notes={"cache": "disk"}, deadline=time.monotonic() + 100)
    child = parent.child(seed=6)
    child.notes["cache"] = "memory"
    assert parent.notes == {"cache": "disk"}
    assert (child.seed, child.deadline, child.store, child.cancel) == (6, parent.deadline, parent.store, parent.cancel)


def test_threads_lose_no_cost() -> None:
    parent = Context()
    children = [parent.child() for _ in range(4)]
    threads = [threading.Thread(target=lambda c=c: [c.spend(1) for _ in range(2000)]) for c in children]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert parent.spent == 8000


def test_rng_repeats_itself() -> None:
    context = Context(seed=3)
    first, second = context.rng().random(4), context.rng().random(4)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, Context(seed=4).rng().random(4))


def test_another_task_needs_a_session() -> None:
    with pytest.raises(UnsupportedError, match="detect"):
        Context().call("detect", None)
    assert Context(call=lambda task, request: (task, request)).child().call("detect", 1) == ("detect", 1)
