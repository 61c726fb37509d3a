"""The loop that runs every recipe, on Lightning: steps, schedules, checkpoints, early stopping, devices."""
