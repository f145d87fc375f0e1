"""Masked autoencoding with a decoder of cross-attention (Fu et al. 2024, arXiv 2401.14391)."""
