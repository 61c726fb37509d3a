"""Models without weights of their own: they serve a task through other tasks, by ``ctx.call`` only."""
