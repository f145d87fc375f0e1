"""Readers of labelled samples, one file for a layout; `hpcgeo.data.tasks` opens them by name."""
