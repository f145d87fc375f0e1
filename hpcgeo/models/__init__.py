"""The networks, which know nothing of distribution."""
