"""Hostile inputs, kills, full disks and crowds, drawn from a seed: `make campaign` looks for the next fault."""
