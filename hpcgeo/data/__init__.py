"""From image files to batches on a device."""
