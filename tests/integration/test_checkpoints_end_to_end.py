"""Checkpoints of every family through the command line, beside the logits of the libraries that wrote them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from gpt_export.artifact.reading import Artifact
from gpt_export.runtime.session import Session
from gpt_export_models.tokenizer import pad

from tests import samples
from tests.conftest import Run, tree
from tests.integration.checkpoints import FAMILIES, Made, hugging_face, nanogpt
from tests.tolerances import LIMITS


@dataclass(frozen=True)
class Exported:
    made: Made
    artifact: Artifact
    session: Session

    def ids(self, batch: int, length: int) -> np.ndarray:
        return samples.random_ids(batch, length, self.made.vocab_size)


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A checkpoint of each family, exported by the command with the gate on."""
    folder = tmp_path_factory.mktemp("family")
    made = FAMILIES[request.param](folder / "checkpoint")
    run = in_process("onnx", made.path, *made.options, "--output", folder / "out")
    assert run.code == 0, run.err
    return Exported(made, Artifact.open(folder / "out"), Session.open(folder / "out"))


def in_process(*arguments: object) -> Run:
    """The command line in this process; the `cli` fixture lives for one test only."""
    import contextlib
    import io

    from gpt_export.cli import cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments], prog_name="gpt-export")
    return Run(int(caught.value.code or 0), out.getvalue(), err.getvalue())


def off_by(found: np.ndarray, wanted: np.ndarray) -> float:
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 7), (5, 3), (1, 24), (2, 24)])
def test_whole_logits_are_the_librarys(exported: Exported, batch: int, length: int) -> None:
    ids = exported.ids(batch, length)
    assert off_by(exported.session.logits(ids), exported.made.logits(ids)) <= LIMITS["relative"]


@pytest.mark.parametrize("chunks", [(1,) * 12, (5, 1, 6), (23, 1)])
def test_logits_in_chunks_are_the_librarys(exported: Exported, chunks: tuple[int, ...]) -> None:
    ids = exported.ids(2, sum(chunks))
    decoding, cuts = exported.session.decoding(2), np.cumsum((0, *chunks))
    parts = [ids[:, start:stop] for start, stop in itertools.pairwise(cuts)]
    found = np.concatenate([decoding.feed(part, np.ones_like(part)) for part in parts], axis=1)
    assert off_by(found, exported.made.logits(ids)) <= LIMITS["relative"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_are_the_librarys_rows_alone(exported: Exported, side: str) -> None:
    rows = [exported.ids(1, length)[0].tolist() for length in (9, 1, 4)]
    ids, mask = pad(rows, side=side, pad_id=exported.made.vocab_size - 1)
    found = exported.session.logits(ids, mask)
    for row, seen, alone in zip(found, mask.astype(bool), rows, strict=True):
        wanted = exported.made.logits(np.array([alone]))[0]
        assert off_by(row[seen], wanted) <= LIMITS["relative"]


def test_greedy_continuations_are_the_librarys(exported: Exported) -> None:
    rows = [exported.ids(1, length)[0].tolist() for length in (6, 2)]
    ids, mask = pad(rows, side="left", pad_id=0)
    found = np.stack(list(exported.session.generate(ids, attention_mask=mask, max_new_tokens=15)), axis=1)
    for row, new in zip(rows, found.tolist(), strict=True):
        for token in new:
            best = exported.made.logits(np.array([row]))[0, -1]
            assert best[token] >= best.max() - LIMITS["relative"] * np.abs(best).max()  # a tie may go either way
            row.append(token)


def test_the_graph_is_cached_and_the_manifest_tells_the_source(exported: Exported) -> None:
    manifest = exported.artifact.manifest
    assert manifest.source["kind"] == "checkpoint"
    assert str(exported.made.path.parent) not in exported.artifact.folder.joinpath("manifest.json").read_text("utf-8")
    assert exported.session.cache is not None
    assert manifest.parity is not None
    assert manifest.parity["passed"]
    assert manifest.variants["fp32"]["path"] == "onnx/model.onnx"
    assert "torchscript/model.pt" not in manifest.files
    tied = manifest.model["configuration"].get("tied_head", False)
    graph = onnx.load(exported.artifact.folder / "onnx" / "model.onnx").graph
    vocab, width = exported.made.vocab_size, manifest.model["configuration"]["emb_dim"]
    held = [tensor for tensor in graph.initializer if sorted(tensor.dims) == sorted([vocab, width])]
    assert len(held) == (1 if tied else 2)  # a tied weight is stored once


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    made = hugging_face(tmp_path / "in", tie_word_embeddings=False)
    for name in ("a", "b"):
        assert in_process("onnx", made.path, "--output", tmp_path / name).code == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize("lengths", [(5, 5), (6, 2, 4)])
def test_generate_is_transformers_generate(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    made = hugging_face(tmp_path / "in")
    assert in_process("onnx", made.path, "--output", tmp_path / "out").code == 0
    rows = [samples.random_ids(1, length, made.vocab_size)[0].tolist() for length in lengths]
    ids, mask = pad(rows, side="left", pad_id=0)
    theirs = made.model.generate(
        torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), max_new_tokens=12, do_sample=False
    )
    session = Session.open(tmp_path / "out")
    ours = np.stack(list(session.generate(ids, attention_mask=mask, max_new_tokens=12)), axis=1)
    assert ours.tolist() == theirs[:, max(lengths) :].tolist()


def test_a_saved_tokenizer_goes_along(tmp_path: Path, cli: Callable[..., Run]) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers writes the tokenizer")
    from tests.byte_gpt import byte_tokenizer

    made = hugging_face(tmp_path / "in", vocab_size=257)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(), eos_token="<|endoftext|>")
    fast.save_pretrained(made.path)
    assert cli("onnx", made.path, "--output", tmp_path / "out").code == 0
    artifact = Artifact.open(tmp_path / "out")
    assert artifact.manifest.model["tokenizer"] == "carried"
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= artifact.manifest.files.keys()
    found = cli("generate", tmp_path / "out", "né", "--max-new-tokens", 4, "--json").json()["continuations"][0]
    assert found["prompt_ids"] == fast("né")["input_ids"]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")  # as consumers of the folder open it
    assert theirs("né")["input_ids"] == found["prompt_ids"]


def test_a_character_level_nanogpt_is_for_ids_alone(tmp_path: Path, cli: Callable[..., Run]) -> None:
    made = nanogpt(tmp_path / "in")
    run = cli("onnx", made.path, "--output", tmp_path / "out")
    assert run.code == 0, run.err
    assert "there is no tokenizer for this vocabulary of 64; the artifact is for ids alone" in run.out
    assert cli("generate", tmp_path / "out", "--ids", "1 2", "--max-new-tokens", 3).code == 0


def test_a_padded_gpt2_vocabulary_takes_text(tmp_path: Path, cli: Callable[..., Run]) -> None:
    made = nanogpt(tmp_path / "in", vocab_size=50304, n_embd=10)
    assert cli("onnx", made.path, "--output", tmp_path / "out", "--gate", "off").code == 0
    run = cli("generate", tmp_path / "out", "Hello, I am", "--max-new-tokens", 5, "--json")
    assert run.json()["continuations"][0]["prompt_ids"] == [15496, 11, 314, 716]


def test_no_cache_gives_a_graph_from_ids_to_logits(tmp_path: Path, cli: Callable[..., Run]) -> None:
    made = hugging_face(tmp_path / "in")
    assert cli("onnx", made.path, "--output", tmp_path / "out", "--no-cache").code == 0
    graph = onnx.load(tmp_path / "out" / "onnx" / "model.onnx").graph
    assert [value.name for value in graph.input] == ["input_ids"]
    assert [value.name for value in graph.output] == ["logits"]
    ids = samples.random_ids(2, 9, made.vocab_size)
    session = Session.open(tmp_path / "out")
    assert session.cache is None
    assert off_by(session.logits(ids), made.logits(ids)) <= LIMITS["relative"]


def test_torchscript_is_written_when_asked_for(tmp_path: Path, cli: Callable[..., Run]) -> None:
    made = hugging_face(tmp_path / "in")
    run = cli("onnx", made.path, "--output", tmp_path / "out", "--torchscript", "--json")
    assert run.code == 0, run.err
    assert set(run.json()["manifest"]["parity"]["targets"]) == {"onnx", "torchscript"}
    ids = samples.random_ids(2, 9, made.vocab_size)
    found = torch.jit.load(str(tmp_path / "out" / "torchscript" / "model.pt"))(torch.from_numpy(ids)).detach().numpy()
    assert off_by(found, made.logits(ids)) <= LIMITS["relative"]


def test_a_gate_that_was_off_is_recorded(tmp_path: Path, cli: Callable[..., Run]) -> None:
    made = hugging_face(tmp_path / "in")
    run = cli("onnx", made.path, "--output", tmp_path / "out", "--gate", "off")
    assert run.code == 0
    assert "NOT compared" in run.out
    manifest = Artifact.open(tmp_path / "out").manifest
    assert manifest.export["gate"] == "off"
    assert manifest.parity is None
    assert not (tmp_path / "out" / "parity.json").exists()


@pytest.mark.parametrize("single", [False, True])
def test_weights_lie_beside_the_graph_or_in_it(single: bool, tmp_path: Path, cli: Callable[..., Run]) -> None:
    made = hugging_face(tmp_path / "in", vocab_size=5000, n_embd=960, n_layer=1)  # 19 MB of embedding alone
    choices = ("--single-file",) if single else ()
    assert cli("onnx", made.path, "--output", tmp_path / "out", "--gate", "off", *choices).code == 0
    names = sorted(path.name for path in (tmp_path / "out" / "onnx").iterdir())
    assert names == (["model.onnx"] if single else ["model.onnx", "model.onnx_data"])
    model = onnx.load(tmp_path / "out" / "onnx" / "model.onnx", load_external_data=False)
    offsets = [
        int(entry.value)
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "offset"
    ]
    assert (len(offsets) > 0) == (not single)
    assert all(offset % 4096 == 0 for offset in offsets)  # so that onnxruntime can map them
    unique = sum(parameter.numel() * 4 for parameter in made.model.parameters())
    size = sum(path.stat().st_size for path in (tmp_path / "out" / "onnx").iterdir())
    assert unique <= size <= 1.01 * unique
    ids = samples.random_ids(1, 5, made.vocab_size)
    assert off_by(Session.open(tmp_path / "out").logits(ids), made.logits(ids)) <= LIMITS["relative"]
