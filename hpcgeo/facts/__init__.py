"""The data behind zoo, machines, strategies and sensors: YAML, each fact with its source."""
