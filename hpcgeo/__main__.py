"""`python -m hpcgeo` is `hpcgeo`."""

from hpcgeo.cli.main import hpcgeo

hpcgeo()
