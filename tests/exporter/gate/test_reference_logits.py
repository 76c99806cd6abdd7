"""Each row is run once and keeps its scores, whatever is asked for later."""

from pathlib import Path

import numpy as np
from gpt_export.gate.cases import grid_case
from gpt_export.gate.reference_logits import ReferenceLogits

from tests import samples


def test_what_is_recorded_later_leaves_what_was_recorded_first(tmp_path: Path) -> None:
    module = samples.seeded(samples.tiny_gpt()).eval()
    first, second, both = (grid_case(samples.VOCAB, batch, length, 0) for batch, length in ((1, 7), (1, 3), (2, 7)))
    logits = ReferenceLogits(tmp_path)
    logits.record(module, [first])
    logits.record(module, [first])
    logits.record(module, [second])
    logits.record(module, [both])
    for case in (first, second, both):
        found = logits.of(case)
        wanted = samples.eager_logits(module, case.ids)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-5)
