"""Measured runs and sweeps."""
