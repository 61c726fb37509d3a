"""The measures: one module for what is counted of a task, and what they share."""
