"""Arithmetic on ground facts: what a run will need (no torch)."""
