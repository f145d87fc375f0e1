"""Kinds of task: metrics and what they need."""
