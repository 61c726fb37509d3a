"""Adapting models to one's own images (floor 8): recipes, the loop, the run that is kept."""
