"""GFM: masked images, and the features of a teacher (Mendieta et al. 2023, arXiv 2302.04476)."""
