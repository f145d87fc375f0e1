"""What has changed between two dates, for each pixel."""

from hpcgeo.kinds.pictures import Chips
from hpcgeo.kinds.segmentation import Segmentation


class Change(Segmentation):
    """A segmentation of two dates of one location."""

    title = "one of several classes of change between two dates, for each pixel"
    metric = "f1"
    picture = Chips("before", "after")
    every_date = True
