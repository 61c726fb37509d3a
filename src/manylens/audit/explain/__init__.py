"""Explanation: which pixels a score rests on, and how far the map that says so can be believed."""

from manylens.audit.explain.explanation import Explanation
from manylens.audit.explain.faithfulness import Faithfulness, faithfulness
from manylens.audit.explain.options import METHODS, Method, Options
from manylens.audit.explain.run import explain, methods_of
from manylens.audit.explain.sanity import Randomisation, randomisation
from manylens.audit.explain.score import SCORED_TASKS, Score, Target, task_score

__all__ = [
    "METHODS",
    "SCORED_TASKS",
    "Explanation",
    "Faithfulness",
    "Method",
    "Options",
    "Randomisation",
    "Score",
    "Target",
    "explain",
    "faithfulness",
    "methods_of",
    "randomisation",
    "task_score",
]
