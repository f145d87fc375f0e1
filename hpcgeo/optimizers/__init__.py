"""Optimizers: a table of rows, and those that torch lacks."""
