"""Models that ``manylens train`` made: a backbone, what was changed in it, and a head."""
