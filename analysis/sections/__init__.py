"""The questions a report answers, a module each."""
