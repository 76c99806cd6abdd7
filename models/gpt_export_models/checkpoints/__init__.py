"""Checkpoints of known families as a configuration and canonical, memory-mapped weights.

A family is one file: it registers itself, and this file imports it.
"""

from gpt_export_models.checkpoints import from_scratch, huggingface, mingpt, nanogpt
from gpt_export_models.checkpoints.checkpoint import Checkpoint
from gpt_export_models.checkpoints.contract import expected_shapes
from gpt_export_models.checkpoints.registry import (
    Family,
    family_named,
    family_names,
    read_checkpoint,
    recognise,
    register,
)

__all__ = [
    "Checkpoint",
    "Family",
    "expected_shapes",
    "family_named",
    "family_names",
    "from_scratch",
    "huggingface",
    "mingpt",
    "nanogpt",
    "read_checkpoint",
    "recognise",
    "register",
]
