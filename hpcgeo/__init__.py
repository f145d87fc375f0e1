"""hpcgeo: from a folder of satellite images to a pretrained geospatial model, at any scale."""

__version__ = "0.1.0"
