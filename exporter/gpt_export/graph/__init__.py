"""A module to a graph without weights."""
