"""The page of scores: what encoders reached, and by which protocol."""
