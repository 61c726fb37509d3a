"""``python -m benchmarks`` lists the claims; ``python -m benchmarks NAME [--data DIR] [--full]`` runs one, its peer
beside it.

A run ends with one JSON line. Exit code 0 when the claim is met, 1 when it is missed, 2 for a name that is no claim.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks._claims import Claim, Options, claims, table
from manylens.errors import ManylensError


def main(words: Sequence[str] | None = None, known: Mapping[str, Claim] | None = None) -> int:
    """Run the command line.

    Args:
        words: The arguments; default those of the process.
        known: The claims; default those of this package.

    Returns:
        The exit code.
    """
    known = claims() if known is None else known
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure the claims, each beside its peer.")
    parser.add_argument("name", nargs="?", help="the claim to run; none lists them")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder with regions.json to judge masks by")
    parser.add_argument("--full", action="store_true", help="measure the whole where a claim measures a part")
    given = parser.parse_args(words)
    if given.name is None:
        width = max(map(len, known), default=0)
        for name, claim in known.items():
            print(f"{name:<{width}}  {claim.goal}")
        return 0
    if given.name not in known:
        print(f"{given.name}: no such claim; the claims are {', '.join(known)}", file=sys.stderr)
        return 2
    if given.data is not None and not (given.data / "regions.json").is_file():
        print(f"{given.data}: has no regions.json; name a folder that has one", file=sys.stderr)
        return 2
    claim = known[given.name]
    print(claim.about, end="\n\n", flush=True)
    try:
        outcome = claim.run(Options(data=given.data, full=given.full))
    except ManylensError as error:  # such as weights that cannot be fetched
        print(error, file=sys.stderr)
        return 1
    print(table(outcome))
    print(claim.line(outcome))
    return 0 if outcome.met else 1


if __name__ == "__main__":
    sys.exit(main())
