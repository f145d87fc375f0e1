"""Masked tokens of any sensors (GPNA, roadmap step 3)."""
