"""The verdict on an export: what is run through both models, what is compared, and what is allowed."""
