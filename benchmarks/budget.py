"""Claim: a mixed run of all tasks under a memory budget of 2 GiB stays within it plus 20 %.

Peer: the same run without a budget, all models held.
Measured: each in a process of its own; the resident memory of its tree of processes is sampled every 20 ms, imports and
everything else included. The run goes through all tasks that have an embedded model twice, so that what had to leave
comes back: segment by click, box and words, detect, classify, embed (picture, text, patches), read, answer and ask.
"""

from __future__ import annotations

from benchmarks._claims import Options, Outcome, Part
from benchmarks._harness import Watched, fresh_home, run_module

GOAL = "peak memory of a mixed run of all tasks under 2 GiB <= 2.4 GiB"

_GIB = 1 << 30
_BUDGET = 2 * _GIB
_SLACK = 1.2
_NO_BUDGET = 1 << 50


def run(options: Options) -> Outcome:
    """Run the tasks with and without a budget."""
    ours, peer = _mixed(_BUDGET), _mixed(_NO_BUDGET)
    return Outcome(
        [
            Part("peak memory", ours.peak_rss / _GIB, peer.peak_rss / _GIB, "GiB", _SLACK * _BUDGET / _GIB),
            Part("time of the run", ours.seconds, peer.seconds, "s"),
        ],
        {"every call succeeded": not ours.said["failed"] and not peer.said["failed"]},
        {"ours": ours.said, "peer": peer.said},
    )


def _mixed(budget: int) -> Watched:
    with fresh_home():
        return run_module("benchmarks._mixed_run", {"budget": budget})
