"""Public data sets by name: what each folder holds stands in facts/benchmarks.yaml."""
