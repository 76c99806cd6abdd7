"""The stages in order, their settings, and the variants; re-validation of what was published."""
