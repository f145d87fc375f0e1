"""SimMIM: masked images, one layer predicts (Xie et al. 2021, arXiv 2111.09886)."""
