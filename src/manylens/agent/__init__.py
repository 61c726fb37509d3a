"""The agent (floor 6): plans a request over the tasks, runs the plan and shows its work."""
