from __future__ import annotations

import json
from pathlib import Path

import pytest
from gpt_export_models.tokenizer import Gpt2Tokenizer

from benches.decoding.files import Files, write_gpt2_tokenizer
from benches.decoding.roster import chosen, ours, peers

TEXTS = ("Hello, world", "  two  spaces\n\nüñí 123456", "")


def test_the_written_tokenizer_is_gpt2s(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    write_gpt2_tokenizer(tmp_path)
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert written.get_vocab_size() == 50257
    assert [written.encode(text).ids for text in TEXTS] == [Gpt2Tokenizer().encode(text) for text in TEXTS]
    assert {"vocab.json", "merges.txt", "tokenizer_config.json"} <= {path.name for path in tmp_path.iterdir()}


def test_a_checkpoint_gets_what_the_converters_want(tmp_path: Path) -> None:
    source = tmp_path / "gpt2-tiny"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({"n_positions": 24}), encoding="utf-8")
    (source / "model.safetensors").write_bytes(b"weights")
    folder = Files(source, tmp_path / "cache").checkpoint()
    assert json.loads((folder / "config.json").read_text("utf-8"))["n_ctx"] == 24
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "tokenizer.json").exists()
    assert json.loads((source / "config.json").read_text("utf-8")) == {"n_positions": 24}


def test_every_variant_of_ours_takes_part(byte_original: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    (own,) = ours(byte_original)
    assert (own.name, own.precision) == ("ours fp32", "fp32")
    assert own.command(2)[-2:] == [Path(f"{byte_original}#fp32"), "2"]
    names = [one.name for one in peers(Files(tmp_path, tmp_path))]
    assert len(set(names)) == len(names) == 11
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    assert [one.name for one in peers(Files(tmp_path, tmp_path))[11:]] == [
        "onnxruntime-genai fp32", "onnxruntime-genai int4"
    ]  # fmt: skip


def test_names_choose_by_their_beginning(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    entrants = peers(Files(tmp_path, tmp_path))
    assert [one.name for one in chosen(entrants, ["llama.cpp Q4", "Opt"])] == [
        "Optimum", "llama.cpp Q4_0", "llama.cpp Q4_K_M"
    ]  # fmt: skip
    with pytest.raises(SystemExit, match="'vLLM' is none of PyTorch eager"):
        chosen(entrants, ["vLLM"])
