"""Claim: `import manylens` takes at most 0.2 s, and `manylens --help` at most 0.4 s, on 2 cores.

Peer: `import supervision`, the library whose Detections the results are, and `transformers --help`, the command line of
the library that most users of such models know. An empty `python -c pass` runs beside them as the floor.
Measured: whole processes from start to end, in turns (A B A B), the median of 9 after one that does not count.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from benchmarks._claims import Options, Outcome, Part
from benchmarks._harness import in_turns, medians, run_process

GOAL = "import manylens <= 0.2 s and manylens --help <= 0.4 s"
ROUNDS = 9

_IMPORT, _HELP = 0.2, 0.4


def run(options: Options) -> Outcome:
    """Time the processes."""
    commands = {
        "floor": [sys.executable, "-c", "pass"],
        "import": [sys.executable, "-c", "import manylens"],
        "import peer": [sys.executable, "-c", "import supervision"],
        "help": [_script("manylens"), "--help"],
        "help peer": [_script("transformers"), "--help"],
    }
    times = in_turns({name: partial(run_process, words) for name, words in commands.items()}, ROUNDS)
    middle = medians(times)
    return Outcome(
        [
            Part("manylens --help", middle["help"], middle["help peer"], "s", _HELP),
            Part("import manylens", middle["import"], middle["import peer"], "s", _IMPORT),
        ],
        notes={"empty python": round(middle["floor"], 4), "fastest": {k: round(min(v), 4) for k, v in times.items()}},
    )


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
