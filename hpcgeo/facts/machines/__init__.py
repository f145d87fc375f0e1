"""One YAML file per machine."""
