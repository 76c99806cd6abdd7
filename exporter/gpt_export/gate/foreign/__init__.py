"""Other exporters' files: what their inputs, outputs and weights mean."""
