"""Several objectives at once, of one backbone."""
