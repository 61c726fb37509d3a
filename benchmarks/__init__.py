"""Measured claims: each module here states one, and runs it with its peer beside it. See ``python -m benchmarks``."""
