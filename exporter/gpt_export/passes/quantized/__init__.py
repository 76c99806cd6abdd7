"""Passes to products and lookups with quantised weights."""
