from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from gpt_export_models.checkpoints import expected_shapes, read_checkpoint
from gpt_export_models.config import GPTConfig
from gpt_export_models.errors import CheckpointError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

safetensors = pytest.importorskip("safetensors.torch", reason="safetensors writes the files: pip install safetensors")

CONFIG = GPTConfig(
    vocab_size=7, context_length=5, emb_dim=6, n_heads=3, n_layers=1, drop_rate=0.0, qkv_bias=False, hidden_dim=4
)


def tiny_state():
    return {name: torch.ones(shape) for name, shape in expected_shapes(CONFIG).items()}


def write_header(path, header, data=b"", *, claimed=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if claimed is None else claimed) + text + data)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "heads" / "book.json"
    path.parent.mkdir()
    path.write_text('{"n_heads": 3}')
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def quick():
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 20


def test_the_undamaged_file_is_read(path, config_file):
    safetensors.save_file(tiny_state(), path)
    assert read_checkpoint(path, config_file=config_file).config == CONFIG


@pytest.mark.parametrize("low_byte", [*b"\x80{PK v\n", 0])
def test_the_first_byte_of_a_safetensors_file_may_be_any(path, config_file, low_byte):
    safetensors.save_file(tiny_state(), path)
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    header, data = path.read_bytes()[8 : 8 + length], path.read_bytes()[8 + length :]
    write_header(path, header + b" " * ((low_byte - length) % 256), data)
    assert path.read_bytes()[0] == low_byte
    assert read_checkpoint(path, config_file=config_file).config == CONFIG


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
def test_a_truncated_safetensors_file_is_refused(path, refusal, kept):
    safetensors.save_file(tiny_state(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    text = refusal(path)
    assert f"{path} is not a complete safetensors file (" in text
    assert "download or save it again" in text


@pytest.mark.parametrize("claimed", [2**63, 2**64 - 1, 10**9, 100])
def test_an_absurd_header_length_is_refused(path, refusal, claimed):
    write_header(path, b"{}", claimed=claimed)
    assert "is not a complete safetensors file (" in refusal(path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0, 8], [4, 12]),
        ([0, 8], [8, 2**40]),
        ([0, 8], [12, 20]),
        ([8, 0], [0, 8]),
        ([0, 8], [-8, 0]),
        ([0, 8], [8, 12]),
    ],
)
def test_offsets_that_overlap_or_lead_outside_are_refused(path, refusal, first, second):
    row = {"dtype": "F32", "shape": [2]}
    header = {"tok_emb.weight": row | {"data_offsets": first}, "pos_emb.weight": row | {"data_offsets": second}}
    write_header(path, header, bytes(20))
    assert "is not a complete safetensors file (" in refusal(path)


@pytest.mark.parametrize("shape", [[2**62, 2**62], [2**63], [-2], [1.5], "22", [[2]]])
def test_shapes_that_cannot_be_are_refused(path, refusal, shape):
    write_header(path, {"tok_emb.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}}, bytes(8))
    assert "is not a complete safetensors file (" in refusal(path)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "BOOL", "I64", "C64", "F64", "F128"])
def test_other_dtypes_are_refused(path, refusal, config_file, dtype):
    header = {"tok_emb.weight": {"dtype": dtype, "shape": [8, 8], "data_offsets": [0, 512]}}
    for bits in (4, 6, 8, 64):
        header["tok_emb.weight"]["data_offsets"][1] = 8 * bits
        write_header(path, header, bytes(8 * bits))
        refusal(path, config_file)


class Runs:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_that_would_run_code_does_not(path, refusal, monkeypatch, old):
    monkeypatch.chdir(path.parent)
    torch.save({"tok_emb.weight": Runs()}, path, _use_new_zipfile_serialization=not old)
    text = refusal(path)
    assert f"{path} asks for {os.system.__module__}.system, which could run code" in text
    assert not Path("ran").exists()


def test_a_whole_module_is_refused_with_what_to_save_instead(path, refusal):
    torch.save(torch.nn.Linear(2, 2), path)
    text = refusal(path)
    assert "asks for torch.nn.modules.linear.Linear, which could run code" in text
    assert text.endswith("if you trust it, save its model.state_dict() alone")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_plain_pickle_is_not_read(path, refusal, protocol):
    path.write_bytes(pickle.dumps(Runs(), protocol=protocol))
    text = refusal(path)
    assert ("is a plain pickle, which is not read because it could run code" in text) == (protocol >= 2)
    assert ("is not a checkpoint; pass" in text) == (protocol < 2)


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.01])
def test_a_truncated_archive_is_refused(path, refusal, kept):
    torch.save(tiny_state(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert "is a truncated or damaged archive (File is not a zip file); download or save it again" in refusal(path)


@pytest.mark.parametrize("kept", [0.99, 0.5])
def test_a_truncated_old_pickle_is_refused(path, refusal, kept):
    torch.save(tiny_state(), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert "is damaged or not a file of torch.save (" in refusal(path)


def test_a_compressed_archive_is_refused_rather_than_misread(path, refusal, tmp_path):
    torch.save(tiny_state(), tmp_path / "whole")
    with zipfile.ZipFile(tmp_path / "whole") as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    assert "is a compressed archive (whole/data.pkl, " in refusal(path)


def test_an_archive_of_something_else_is_refused(path, refusal):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "is damaged or not a file of torch.save (" in refusal(path)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_torchscript_archive_is_refused(path, refusal):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    assert "is a TorchScript archive, not a checkpoint; pass a file of torch.save" in refusal(path)


def test_a_list_of_tensors_is_refused(path, refusal):
    torch.save([torch.ones(2)], path)
    assert "holds a list, not a dict of tensors; save model.state_dict() with torch.save" in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; download or save it again"),
        (
            b"These are not weights.\n",
            "is not a checkpoint; pass a safetensors file, a file of torch.save, or a folder",
        ),
        (b"{}", "is JSON but no index of shards, it has no weight_map"),
        (b'{"a"', "is not valid JSON"),
        (b'{"meta":{}}', "is JSON but no index of shards"),
        (b"[[[[[[[[{}]]]]]]]]", "is not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer, not the weights"),
    ],
)
def test_other_files_are_called_what_they_are(path, refusal, content, said):
    path.write_bytes(content)
    assert f"{path} {said}" in refusal(path)


def test_a_path_that_is_not_there_is_said(path, refusal):
    assert refusal(path) == f"{path} does not exist; pass a checkpoint's file or folder"


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes are Unix's")
def test_a_pipe_is_not_waited_for(path, refusal):
    os.mkfifo(path)
    assert "is neither a file nor a folder" in refusal(path)


def test_a_folder_without_weights_names_what_it_needs(tmp_path, refusal):
    (tmp_path / "README.md").write_text("no weights here")
    assert f"{tmp_path} holds no weights; it needs one of model.safetensors, " in refusal(tmp_path)


def test_a_folder_with_several_candidates_asks_for_one(tmp_path, refusal):
    torch.save(tiny_state(), tmp_path / "step1.pth")
    safetensors.save_file(tiny_state(), tmp_path / "step2")
    assert "holds 2 files that could be the checkpoint (step1.pth, step2); pass one of them" in refusal(tmp_path)


@pytest.fixture
def sharded(tmp_path):
    names = sorted(tiny_state())
    homes = {name: f"part{i % 2}.safetensors" for i, name in enumerate(names)}
    for part in set(homes.values()):
        safetensors.save_file({n: t for n, t in tiny_state().items() if homes[n] == part}, tmp_path / part)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": homes}))
    return tmp_path


def change_index(folder, **homes):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] |= homes
    path.write_text(json.dumps(index))


def test_any_familys_weights_may_be_sharded(sharded, config_file):
    for path in (sharded, sharded / "model.safetensors.index.json"):
        assert read_checkpoint(path, config_file=config_file).config == CONFIG


def test_a_missing_shard_is_named(sharded, refusal):
    (sharded / "part1.safetensors").unlink()
    assert "model.safetensors.index.json names shards that are not beside it: part1.safetensors; " in refusal(sharded)


def test_one_shard_alone_is_named_with_its_folder(sharded, refusal, config_file):
    said = refusal(sharded / "part0.safetensors", config_file)
    assert f"is one shard of 2 (model.safetensors.index.json); pass the folder {sharded}" in said


@pytest.mark.parametrize("name", ["../part1.safetensors", "/etc/passwd", "..", "", "C:\\part1", "a/b", "a\0b", ".\\x"])
def test_a_shard_outside_the_folder_is_refused(sharded, refusal, name):
    change_index(sharded, x=name)
    assert "names a shard outside its folder, " in refusal(sharded)


def test_a_tensor_in_no_shard_or_in_two_is_refused(sharded, refusal):
    change_index(sharded, lost="part0.safetensors")
    assert "names tensors that are in no shard: lost;" in refusal(sharded)
    (sharded / "part1.safetensors").write_bytes((sharded / "part0.safetensors").read_bytes())
    assert "part0.safetensors repeats tensors of another shard: final_norm.scale, " in refusal(sharded).replace(
        "1", "0"
    )


def test_a_shard_that_is_another_index_is_refused(sharded, refusal):
    change_index(sharded, x="model.safetensors.index.json")
    assert "model.safetensors.index.json is not a checkpoint; pass" in refusal(sharded)


def test_names_from_a_file_do_not_reach_the_terminal_raw(path, refusal):
    torch.save({"\x1b[2J\nx" * 100: torch.ones(1)}, path)
    assert "\x1b" not in refusal(path)


def _damage(data: bytes, flips: list[tuple[int, int]], length: int) -> bytes:
    damaged = bytearray(data)
    for at, bit in flips:
        damaged[at % len(damaged)] ^= 1 << bit
    return bytes(damaged[: length % (len(damaged) + 1)] if length % 3 == 0 else damaged)


@pytest.mark.parametrize("kind", ["safetensors", "archive", "old pickle"])
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(flips=st.lists(st.tuples(st.integers(0, 2**12), st.integers(0, 7)), max_size=4), length=st.integers(0, 2**13))
def test_damage_gives_a_checkpoint_or_a_named_error(tmp_path_factory, kind, flips, length):
    folder = tmp_path_factory.getbasetemp() / kind.replace(" ", "-")
    folder.mkdir(exist_ok=True)
    (folder / "c.json").write_text('{"n_heads": 3}')
    whole = folder / "whole"
    if not whole.exists():
        if kind == "safetensors":
            safetensors.save_file(tiny_state(), whole)
        else:
            torch.save(tiny_state(), whole, _use_new_zipfile_serialization=kind == "archive")
    (folder / "damaged").unlink(missing_ok=True)  # a new file: an earlier one may still be mapped
    (folder / "damaged").write_bytes(_damage(whole.read_bytes(), flips, length))
    try:
        checkpoint = read_checkpoint(folder / "damaged", config_file=folder / "c.json")
    except CheckpointError:
        return
    assert {n: tuple(t.shape) for n, t in checkpoint.tensors.items()} == expected_shapes(checkpoint.config)
    sum(tensor.double().sum() for tensor in checkpoint.tensors.values())
