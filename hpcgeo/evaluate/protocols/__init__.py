"""Frozen protocols: what can be read off features that are not trained any further."""
