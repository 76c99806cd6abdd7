"""A folder for temporary files that is full, or cannot be made, is named with the variable that names another."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest
from gpt_export_models.errors import ScratchError
from gpt_export_models.scratch import scratch_folder


def test_a_scratch_folder_is_there_and_then_gone() -> None:
    with scratch_folder() as folder:
        (folder / "x").write_text("x")
    assert not folder.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_one_is_named_with_tmpdir(number: int) -> None:
    with (
        pytest.raises(ScratchError, match="name another by the environment variable TMPDIR") as caught,
        scratch_folder(),
    ):
        raise OSError(number, "No space left")
    assert f"the folder for temporary files, {tempfile.gettempdir()}, is full" in str(caught.value)


def test_other_failures_are_told_as_they_are() -> None:
    with pytest.raises(FileNotFoundError), scratch_folder() as folder:
        (folder / "nothing").read_text()


def test_one_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ScratchError, match=r"no folder for temporary files can be made .* TMPDIR"), scratch_folder():
        pass
