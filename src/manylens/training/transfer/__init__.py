"""How much of a base model learns: freezing, LoRA, stochastic depth, batch norms."""
