"""Several labelled tasks at once (GPNA, section 4)."""
