"""The command line; see :mod:`manylens.cli.app`."""

from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> None:
    """Run ``manylens`` with the given words, or with those of the process."""
    from manylens.cli.app import main as run

    run(words)
