"""The training state of a run on disk."""
