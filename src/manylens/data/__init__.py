"""Data sets: pictures with labels, masks, splits and any columns, from and to the formats of the field (floor 6)."""

from manylens.data.dataset import Dataset
from manylens.data.problems import DataError, Problem, Problems
from manylens.data.records import Annotation, Category, Record

__all__ = ["Annotation", "Category", "DataError", "Dataset", "Problem", "Problems", "Record"]
