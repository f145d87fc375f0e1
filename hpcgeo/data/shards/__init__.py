"""Image files become a data set of HDF5 shard files, and samples come out of it."""
