"""Train models: losses, log-probabilities, packing, the loop and its checkpoints."""
