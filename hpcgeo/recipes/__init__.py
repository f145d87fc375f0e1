"""Complete named runs: one YAML file each."""
