"""Modules on the meta device."""

from __future__ import annotations

from gpt_export_models.blank import without_weights

from tests import samples


def test_a_copy_without_weights_has_no_data_and_keeps_ties() -> None:
    module = samples.Tied()
    copy = without_weights(module)
    assert {p.device.type for p in copy.parameters()} == {"meta"}
    assert copy.head.weight is copy.emb.weight
    assert {p.device.type for p in module.parameters()} == {"cpu"}
    assert {b.device.type for b in without_weights(samples.Buffers()).buffers()} == {"meta"}
