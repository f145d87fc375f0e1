"""Pictures of samples, and charts of predictions."""
