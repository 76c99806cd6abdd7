"""What applications rely on: the limits that the session enforces, and the numbers it gives."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError, InputError, RuntimeVersionError
from gpt_export.runtime.session import Session, check_version
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests import samples
from tests.tolerances import LIMITS


@pytest.fixture
def session(tiny: Path) -> Session:
    return Session.open(tiny)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (np.zeros((1, 25), np.int64), ["25 tokens a row", "the context is 24", "shorten the rows"]),
        (np.array([[0, 29]]), ["id 29 is outside the vocabulary", "0 to 28"]),
        (np.array([[0, 10**12]]), ["id 1000000000000 is outside the vocabulary"]),
        (np.array([[-1, 3]]), ["id -1 is outside the vocabulary", "0 to 28"]),
        (np.array([1, 2, 3]), ["2 axes (batch, sequence), not 1", "ids[None, :]"]),
        (np.zeros((1, 2, 3), np.int64), ["2 axes", "not 3"]),
        (np.int64(3), ["2 axes", "not 0"]),
        (np.zeros((1, 2), np.float32), ["int64, not float32", "astype"]),
        (np.array([[2**64 - 1]], np.uint64), [f"id {2**64 - 1} is outside the vocabulary"]),
        (np.zeros((1, 2), bool), ["int64, not bool"]),
        (np.zeros((0, 2), np.int64), ["shape [0, 2]", "at least one row and one token"]),
        (np.zeros((2, 0), np.int64), ["shape [2, 0]", "at least one row and one token"]),
        ([[]], ["shape [1, 0]"]),
        ([[1, 2], [3]], ["int64 array (batch, sequence)", "pad the rows to one length"]),
        ([["a"]], ["ids are text", "session.encode(text)"]),
        ("Hello, I am", ["ids are text", "session.text(text) continues it"]),
        ([[1.5]], ["int64, not float64"]),
    ],
)
def test_ids_that_the_model_cannot_take_are_refused(session: Session, ids: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        session.logits(ids)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_graph_alone_would_take_some_of_these(tiny: Path) -> None:
    # The control: a negative id is a valid index from the end to ONNX's Gather, so the session has to say no.
    plain = ort.InferenceSession(str(tiny / "onnx" / "model.onnx"))
    assert plain.run(None, {"input_ids": np.array([[-1]])})[0].shape == (1, 1, samples.VOCAB)


def test_lists_and_any_memory_layout_give_the_same_logits(session: Session) -> None:
    ids = samples.random_ids(4, 6)
    expected = session.logits(ids)
    wide = np.zeros((4, 12), np.int64)
    wide[:, ::2] = ids
    for other in (ids.tolist(), np.asfortranarray(ids), wide[:, ::2], ids[::-1][::-1], ids.astype(">i8").astype("i8")):
        assert (session.logits(other) == expected).all()
    assert (session.logits(ids.T.copy().T) == expected).all()


def test_the_ids_passed_are_not_changed(session: Session) -> None:
    ids = samples.random_ids(2, 3)
    before = ids.copy()
    session.logits(ids)
    assert (ids == before).all()


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 6), sequence=st.integers(1, samples.CONTEXT), seed=st.integers(0, 99))
def test_every_shape_within_the_limits_gives_eagers_logits(
    tiny_original: Path, batch: int, sequence: int, seed: int
) -> None:
    session = Session.open(tiny_original, verify=False)
    ids = samples.random_ids(batch, sequence, seed=seed)
    found = session.logits(ids)
    assert found.shape == (batch, sequence, samples.VOCAB)
    assert found.dtype == np.float32
    assert np.abs(found - samples.eager_logits(samples.tiny_dummy(), ids)).max() <= LIMITS["fp32"]


@pytest.mark.parametrize(("batch", "sequence"), [(1, 1), (2, 4), (3, 7), (5, 1), (1, 513), (2, 100), (1, 1024)])
def test_the_124m_artifact_gives_eagers_logits(
    session_124m: Session, dummy_124m: nn.Module, max_difference: Callable[..., float], batch: int, sequence: int
) -> None:
    ids = samples.random_ids(batch, sequence, 50257)
    assert max_difference(session_124m, dummy_124m, ids) <= LIMITS["fp32"]


def test_the_limit_tells_dropout_on_the_124m_model(session_124m: Session, dummy_124m: nn.Module) -> None:
    ids = samples.random_ids(1, 4, 50257)
    dummy_124m.train()
    try:
        assert np.abs(session_124m.logits(ids) - samples.eager_logits(dummy_124m, ids)).max() > 1000 * LIMITS["fp32"]
    finally:
        dummy_124m.eval()


def test_the_124m_file_in_plain_onnxruntime_has_the_one_input_and_agrees(
    artifact_124m: Path, dummy_124m: nn.Module
) -> None:
    plain = ort.InferenceSession(str(artifact_124m / "onnx" / "model.onnx"))
    assert [(value.name, value.shape) for value in plain.get_inputs()] == [
        ("input_ids", ["batch_size", "sequence_length"])
    ]
    for batch, sequence in ((1, 1), (2, 4), (3, 33)):
        ids = samples.random_ids(batch, sequence, 50257)
        (found,) = plain.run(None, {"input_ids": ids})
        assert np.abs(found - samples.eager_logits(dummy_124m, ids)).max() <= LIMITS["fp32"]


def test_padding_never_changes_the_logits_of_a_row_before_it(session_124m: Session) -> None:
    row = np.array([[6109, 3626, 6100]])
    padded = np.array([[6109, 3626, 6100, 50256, 50256], [6109, 1110, 6622, 257, 11]])
    assert np.abs(session_124m.logits(padded)[:1, :3] - session_124m.logits(row)).max() <= LIMITS["fp32"]


def test_the_context_and_vocabulary_are_those_of_the_model(session_124m: Session) -> None:
    assert (session_124m.vocab_size, session_124m.context_length) == (50257, 1024)
    with pytest.raises(InputError, match="1025 tokens a row, the context is 1024"):
        session_124m.logits(np.zeros((1, 1025), np.int64))


def test_an_unknown_variant_names_the_known_ones(tiny: Path) -> None:
    with pytest.raises(ArtifactError, match="has no variant 'int8'; it has fp32"):
        Session.open(tiny, variant="int8")


def test_a_torchscript_artifact_has_no_variant(tiny: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    run = cli("torchscript", "tests.samples:tiny_dummy", "--output", tmp_path / "ts")
    assert run.code == 0, run.err
    assert sorted(p.name for p in (tmp_path / "ts").iterdir()) == [
        "README.md",
        "manifest.json",
        "parity.json",
        "report.html",
        "torchscript",
    ]
    Artifact.open(tmp_path / "ts").verify()
    with pytest.raises(ArtifactError, match="only TorchScript"):
        Session.open(tmp_path / "ts")
    assert tiny.exists()


def test_verification_can_be_left_out(tiny: Path) -> None:
    (tiny / "parity.json").write_text("edited")
    with pytest.raises(ArtifactError, match=r"parity\.json has 6 bytes"):
        Session.open(tiny)
    Session.open(tiny, verify=False).logits([[1]])


def test_a_broken_graph_is_told_even_without_verification(tiny: Path) -> None:
    (tiny / "onnx" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="onnxruntime cannot load") as caught:
        Session.open(tiny, verify=False)
    assert "\n" not in str(caught.value)


def test_threads_and_providers_reach_onnxruntime(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    real = ort.InferenceSession

    def spy(path: str, options: ort.SessionOptions, providers: list[str]) -> ort.InferenceSession:
        seen.update(threads=options.intra_op_num_threads, providers=providers)
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", spy)
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    Session.open(tiny)
    assert seen == {"threads": 0, "providers": ["CPUExecutionProvider"]}
    Session.open(tiny, threads=1, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert seen == {"threads": 1, "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}


@pytest.mark.parametrize("providers", [["Nope"], ["Nope", "CPUExecutionProvider"], "CPUExecutionProvider", []])
def test_providers_that_this_onnxruntime_does_not_have_are_refused(tiny_original: Path, providers: Any) -> None:
    with pytest.raises(InputError, match=r"pass a list with one of .*CPUExecutionProvider"):
        Session.open(tiny_original, providers=providers)


def test_a_provider_that_is_not_in_this_build_may_stand_before_one_that_is(tiny_original: Path) -> None:
    missing = next(name for name in ort.get_all_providers() if name not in ort.get_available_providers())
    Session.open(tiny_original, providers=[missing, "CPUExecutionProvider"], verify=False).logits([[1]])
    with pytest.raises(InputError, match=missing):
        Session.open(tiny_original, providers=[missing])


@pytest.mark.parametrize("threads", [-1, 0, 1.5])
def test_threads_that_are_none_are_refused(tiny_original: Path, threads: Any) -> None:
    with pytest.raises(InputError, match=f"threads {threads} is out of range; pass 1 or more"):
        Session.open(tiny_original, threads=threads)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int16", "uint64"])
def test_whole_numbers_of_any_width_are_ids(session: Session, dtype: str) -> None:
    ids = samples.random_ids(2, 5)
    assert (session.logits(ids.astype(dtype)) == session.logits(ids)).all()


def test_the_first_variant_there_is_is_opened(byte_variants: Path) -> None:
    artifact = Artifact.open(byte_variants)
    assert list(artifact.manifest.variants) == ["fp32", "fp16", "int8", "int4"]
    kept = {name: artifact.manifest.variants[name] for name in ("int4", "int8")}
    few = Artifact(byte_variants, dataclasses.replace(artifact.manifest, variants=kept))
    assert few.variant_name() == "int8"
    assert Session.of(few).variant == "int8"
    assert Session.open(byte_variants, verify=False).variant == "fp32"


def test_a_session_and_an_artifact_are_one_line_each(byte_original: Path) -> None:
    session = Session.open(byte_original)
    for line in (repr(session), str(Artifact.open(byte_original)), repr(Artifact.open(byte_original))):
        assert "\n" not in line
        assert str(byte_original) in line
        assert len(line) < 400
    assert "in fp32: vocabulary 257, context 40, a cache of 2 layers" in repr(session)


def test_an_onnxruntime_older_than_the_minimum_is_refused() -> None:
    with pytest.raises(
        RuntimeVersionError, match=r"1\.16\.3 is installed, this artifact needs 1\.17 or newer; upgrade"
    ):
        check_version("1.17", installed="1.16.3")


@pytest.mark.parametrize("installed", ["1.17.0", "1.17.3", "1.20", "1.100.0", "2.0.0", "1.33.0.dev20260101"])
def test_the_minimum_and_newer_ones_are_taken(installed: str) -> None:
    check_version("1.17", installed=installed)


def test_opening_refuses_an_artifact_that_needs_a_newer_onnxruntime(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt_export.runtime import session as runtime

    monkeypatch.setattr(runtime.check_version, "__defaults__", ("1.16.3",))
    with pytest.raises(RuntimeVersionError, match=r"1\.16\.3 is installed"):
        Session.open(tiny)
    assert json.loads((tiny / "manifest.json").read_text())["variants"]["fp32"]["minimum_onnxruntime"] == "1.17"
