"""Readers of labelled samples, one file for a layout; `hpcgeo.data.labelled` opens them by name."""
