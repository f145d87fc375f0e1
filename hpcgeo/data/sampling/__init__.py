"""Which samples a step takes: order, mixtures, batches of unequal lengths."""
