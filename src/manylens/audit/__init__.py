"""The audit of a model: fairness, robustness, explanation, privacy and cost (floor 8)."""
