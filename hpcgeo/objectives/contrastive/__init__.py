"""Contrastive learning of two views (MoCo v3; Chen et al. 2021, arXiv 2104.02057)."""
