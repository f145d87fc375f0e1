"""How good a model is, and what the simpler ones reach."""
