"""Measuring: figures of a model on labelled data, with intervals, slices and comparisons (floor 7)."""
