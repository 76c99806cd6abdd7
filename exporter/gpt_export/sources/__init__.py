"""What SOURCE means: names, modules, checkpoints; a Source is reference, skeleton and weights."""
