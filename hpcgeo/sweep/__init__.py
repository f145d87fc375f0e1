"""Sweeps: grids of profile runs, here and on a scheduler."""
