"""Measurements, run as `python -m benches.NAME` in the environment of the project; results in `benches/results`."""
