"""Which model serves. Knows nothing of how models are made."""
