"""How fast an artifact runs where it is installed: measured through the `Session` of applications, without torch."""
