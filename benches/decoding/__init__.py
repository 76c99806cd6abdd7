"""Decoders side by side: an engine is one way to run a GPT-2, a worker is a process with one engine in it."""
