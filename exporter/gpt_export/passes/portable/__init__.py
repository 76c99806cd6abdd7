"""Passes within standard operators."""
