"""The door for files: what is no file, not all there, or too much is refused at once; what is a file is read."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gpt_export_models.errors import CheckpointError
from gpt_export_models.json_files import parse_json, read_json_object
from gpt_export_models.regular_files import RefusedFileError, check_file, check_folder, open_file, read_bytes, read_text

MEBI = 2**20


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def sock(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    return path


def link_to_zeros(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def hollow(path: Path) -> Path:
    with path.open("wb") as file:
        file.write(b"x" * 4096)
        file.truncate(2**40)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [(pipe, "it is a pipe"), (sock, "socket"), (link_to_zeros, "it is a device"), (hollow, "nearly all are holes")],
)
@pytest.mark.parametrize("read", [open_file, check_file, lambda path: read_bytes(path, largest=2**41)])
def test_what_is_no_whole_file_is_refused_before_a_byte_is_read(
    tmp_path: Path, make: Callable[[Path], Path], words: str, read: Callable[[Path], object]
) -> None:
    path = make(tmp_path / "x")
    began = time.monotonic()
    with pytest.raises(RefusedFileError, match=words) as caught:
        read(path)
    assert time.monotonic() - began < 1
    assert caught.value.filename == str(path)


def test_a_folder_and_a_name_that_no_file_can_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedFileError, match="it is a folder"):
        open_file(tmp_path)
    with pytest.raises(RefusedFileError, match="no file can have this name"):
        open_file(tmp_path / "a\0b")


def test_a_file_is_read_up_to_its_bound_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"a\r\nb\rc\n" * 1000)
    assert read_text(path) == "a\nb\nc\n" * 1000
    assert read_bytes(path, largest=7000) == path.read_bytes()
    with pytest.raises(RefusedFileError, match="it has 7000 bytes, and at most 6999 are read as such"):
        read_bytes(path, largest=6999)


def test_a_file_that_says_nothing_of_its_size_is_bounded_too() -> None:
    status = Path("/proc/self/status")  # whose size is 0
    assert read_text(status, largest=MEBI).startswith("Name:")
    with pytest.raises(RefusedFileError, match="at most 10 are read"):
        read_bytes(status, largest=10)


def test_a_large_file_with_holes_that_holds_enough_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.write(b"x" * 6 * MEBI)
        file.truncate(300 * MEBI)
    assert check_file(path) == 300 * MEBI
    with path.open("r+b") as file:
        file.truncate(MEBI)
        file.truncate(300 * MEBI)
    with pytest.raises(RefusedFileError, match="holes"):
        check_file(path)


def test_a_path_that_is_no_utf_8_is_refused_where_a_library_needs_it(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.json"))
    path.write_text('{"a": 1}')
    with pytest.raises(RefusedFileError, match="its path is not UTF-8"):
        check_file(path)
    assert read_json_object(path) == {"a": 1}


def test_a_folder_for_a_library_has_no_pipe_in_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    check_folder(tmp_path)
    pipe(tmp_path / "vocab.json")
    with pytest.raises(CheckpointError, match=r"vocab\.json cannot be read: it is a pipe"):
        check_folder(tmp_path)


@pytest.mark.parametrize("make", [pipe, link_to_zeros, hollow])
def test_json_that_is_no_file_is_a_checkpoint_error(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: it "):
        read_json_object(make(tmp_path / "config.json"))


@pytest.mark.parametrize("text", ['{"a\\ud800": 1}', '["\\uDFFF"]', '"\\ud83d \\ude00"'])
def test_half_of_a_surrogate_pair_is_no_text(text: str) -> None:
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        parse_json(text)


def test_a_whole_surrogate_pair_is_text() -> None:
    assert parse_json('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "1e999"])
def test_numbers_beyond_json_are_refused_where_they_must_be_finite(text: str) -> None:
    parse_json(text)  # as configurations of Hugging Face's have them
    with pytest.raises(ValueError, match=r"number of JSON|beyond every float"):
        parse_json(text, finite=True)
