"""What a step does, and how a model is evaluated on the way."""
