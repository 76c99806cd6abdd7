"""Copy this beside your tests: the published ONNX must be the checkpoint, on every commit.

    pytest test_parity.py                                  about 2,000 positions
    pytest test_parity.py --gpt-export-cases full          every shape, whole

Instead of a checkpoint's path, `assert_parity` takes a module of yours, or any SOURCE of the command line.
"""

from __future__ import annotations

import os

ARTIFACT = os.environ.get("ARTIFACT", "artifacts/gpt2")
CHECKPOINT = os.environ.get("CHECKPOINT", "checkpoints/gpt2")


def test_the_published_onnx_is_the_checkpoint(assert_parity):
    report = assert_parity(ARTIFACT, CHECKPOINT)
    assert report.weights.checked > 0
