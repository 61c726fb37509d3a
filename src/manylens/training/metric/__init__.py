"""Metric learning: vectors that are near for pictures of one class, and far for those of others."""
