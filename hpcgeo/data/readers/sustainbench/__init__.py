"""Readers of SustainBench's data sets, a module each."""
