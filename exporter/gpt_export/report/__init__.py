"""The report of a parity check as one self-contained page."""
