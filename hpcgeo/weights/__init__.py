"""Weights in and out: exports, public models, initial weights."""
