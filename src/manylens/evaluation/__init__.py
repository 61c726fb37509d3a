"""Measuring: figures of a model on labelled data, with intervals, slices and comparisons (floor 7).

``measures/`` holds what is counted of each task, as tallies (``tally.py``); ``intervals.py``, ``slices.py`` and
``comparing.py`` work on any tally; ``evaluate.py`` runs a model by the table in ``protocols.py``, with the help of
``asking.py``, ``running.py``, ``measuring.py`` and ``predictions.py``; ``results.py``, ``page.py`` and ``worst.py``
say what came of it.
"""
