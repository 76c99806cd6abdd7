"""Weights in fewer bits: schemes, rounding, and the tensors that a file holds in place of a matrix."""
