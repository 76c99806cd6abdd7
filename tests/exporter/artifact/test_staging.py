"""Where an artifact may go, and what a failed run leaves: nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from gpt_export.artifact.manifest import FORMAT
from gpt_export.artifact.reading import Artifact
from gpt_export.artifact.staging import stage
from gpt_export.errors import OutputError

from tests import samples
from tests.conftest import Run, tree

Export = Callable[..., Artifact]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def manifest_of(text: str) -> str:
    """A manifest of ours, as far as `--force` looks at it."""
    return json.dumps({"format": FORMAT, "text": text})


def held(folder: Path) -> dict[str, bytes]:
    """What is in a folder, each of our manifests by its text alone."""
    return {
        name: json.loads(content)["text"].encode() if name.endswith("manifest.json") else content
        for name, content in tree(folder).items()
    }


def publish(output: Path, text: str, *, replace: bool = False) -> None:
    with stage(output, replace=replace) as staged:
        (staged.folder / "manifest.json").write_text(manifest_of(text))
        staged.publish()


def test_an_existing_artifact_needs_force(export_tiny: Export, tiny: Path) -> None:
    before = tree(tiny)
    with pytest.raises(OutputError, match=f"{tiny} exists; replace it with force=True, or choose another output"):
        export_tiny(samples.tiny_gpt(), tiny)
    assert tree(tiny) == before
    assert names(tiny.parent) == {"tiny"}


def test_force_replaces_the_whole_artifact(export_tiny: Export, tiny: Path) -> None:
    (tiny / "left-over.txt").write_text("x")
    before = tree(tiny)
    export_tiny(samples.tiny_gpt(), tiny, force=True)
    assert "left-over.txt" not in tree(tiny)
    assert tree(tiny)["onnx/model.onnx"] != before["onnx/model.onnx"]
    Artifact.open(tiny).verify()
    assert names(tiny.parent) == {"tiny"}


def test_force_never_replaces_a_folder_that_is_no_artifact(export_tiny: Export, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is not an artifact of gpt-export, so force=True will not replace it"):
        export_tiny(samples.tiny_dummy(), tmp_path / "home", force=True)
    assert tree(tmp_path / "home") == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize(
    "text", ['{"name": "my app", "start_url": "/"}', '{"format": "webpack"}', "[]", "null", "not JSON", ""]
)
def test_force_never_replaces_a_folder_with_another_tools_manifest(
    text: str, export_tiny: Export, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text(text)
    (tmp_path / "site" / "index.html").write_text("<p>mine</p>")
    with pytest.raises(OutputError, match="is not an artifact of gpt-export, so force=True will not replace it"):
        export_tiny(samples.tiny_dummy(), tmp_path / "site", force=True)
    assert tree(tmp_path) == {"site/manifest.json": text.encode(), "site/index.html": b"<p>mine</p>"}


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_never_replaced(export_tiny: Export, tmp_path: Path, force: bool) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(OutputError, match="is a file, an artifact is a folder; choose another output"):
        export_tiny(samples.tiny_dummy(), tmp_path / "x", force=force)
    assert (tmp_path / "x").read_text() == "mine"


def test_an_empty_folder_is_taken(export_tiny: Export, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export_tiny(samples.tiny_dummy(), tmp_path / "empty")
    Artifact.open(tmp_path / "empty").verify()
    assert names(tmp_path) == {"empty"}


def test_a_link_to_a_folder_stays_a_link(export_tiny: Export, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    export_tiny(samples.tiny_dummy(), tmp_path / "link")
    export_tiny(samples.tiny_gpt(), tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink()
    Artifact.open(tmp_path / "disk").verify()
    assert names(tmp_path) == {"disk", "link"}


def test_parents_are_made(export_tiny: Export, tmp_path: Path) -> None:
    export_tiny(samples.tiny_dummy(), tmp_path / "a" / "b" / "c")
    assert names(tmp_path / "a" / "b") == {"c"}


def test_parents_made_for_a_failed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(RuntimeError), stage(tmp_path / "mine" / "b" / "c", replace=False):
        raise RuntimeError("half way")
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


@pytest.mark.parametrize("parent", ["below-a-file", "/proc/1"])
def test_a_place_that_cannot_be_written_is_told(export_tiny: Export, tmp_path: Path, parent: str) -> None:
    (tmp_path / "below-a-file").write_text("x")
    output = tmp_path / parent / "new" / "out"
    with pytest.raises(OutputError, match="choose another output") as caught:
        export_tiny(samples.tiny_dummy(), output)
    assert "\n" not in str(caught.value)
    assert "cannot be" in str(caught.value)
    assert names(tmp_path) == {"below-a-file"}


def test_a_folder_without_write_permission_is_told(export_tiny: Export, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere; places that even root cannot write are tested above")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        export_tiny(samples.tiny_dummy(), tmp_path / "locked" / "out")


def test_too_little_space_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="MB free, the export needs"),
        stage(tmp_path / "new" / "x", replace=False, needed_bytes=10**18),
    ):
        raise AssertionError("must not be entered")
    assert names(tmp_path) == set()


def test_something_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with stage(tmp_path / "x", replace=False) as staged:
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "thesis.tex").write_text("years of work")
        with pytest.raises(OutputError, match="exists; replace it with --force"):
            staged.publish()
    assert tree(tmp_path) == {"x/thesis.tex": b"years of work"}


@pytest.mark.parametrize("files", [("thesis.tex",), ("thesis.tex", "manifest.json")])
def test_a_replacement_never_deletes_somebodys_folder_that_appears_meanwhile(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    with stage(tmp_path / "x", replace=True) as staged:
        (staged.folder / "manifest.json").write_text(manifest_of("new"))
        (tmp_path / "x").mkdir()
        for name in files:
            (tmp_path / "x" / name).write_text("years of work")
        with pytest.raises(OutputError, match="is not an artifact of gpt-export, so --force will not replace it"):
            staged.publish()
    assert tree(tmp_path) == {f"x/{name}": b"years of work" for name in files}


def test_a_published_folder_has_the_usual_permissions(tmp_path: Path) -> None:
    publish(tmp_path / "x", "1")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_staging_folders_of_dead_runs_are_removed_and_others_are_not(tmp_path: Path) -> None:
    for name in (".x.staging-dead", ".x.staging-also", ".xy.staging-other", ".x.stagingless"):
        (tmp_path / name).mkdir()
    publish(tmp_path / "x", "1")
    assert names(tmp_path) == {"x", ".xy.staging-other", ".x.stagingless"}


def test_names_with_wildcards_recover_only_themselves(tmp_path: Path) -> None:
    (tmp_path / ".ab.staging-other").mkdir()
    publish(tmp_path / "[ab]*", "1")
    publish(tmp_path / "*", "1")
    assert names(tmp_path) == {"[ab]*", "*", ".ab.staging-other"}


def test_the_staging_folder_of_a_live_run_is_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "x"
    with stage(output, replace=True) as first:
        (first.folder / "manifest.json").write_text(manifest_of("first"))
        publish(output, "second")
        assert first.folder.is_dir()
        assert held(output) == {"manifest.json": b"second"}
        first.publish()
    assert held(output) == {"manifest.json": b"first"}
    assert names(tmp_path) == {"x"}


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system or file system without `renameat2`."""
    monkeypatch.setattr("gpt_export.artifact.staging._renameat2", lambda *_: False)


@pytest.mark.usefixtures("without_exchange")
def test_replacing_works_where_folders_cannot_be_exchanged(tmp_path: Path) -> None:
    publish(tmp_path / "x", "old")
    publish(tmp_path / "x", "new", replace=True)
    assert held(tmp_path) == {"x/manifest.json": b"new"}
    with pytest.raises(OutputError, match="exists"):
        publish(tmp_path / "x", "third")


@pytest.mark.usefixtures("without_exchange")
def test_an_artifact_renamed_aside_by_a_dead_run_is_put_back(tmp_path: Path) -> None:
    publish(tmp_path / "x", "old")
    (tmp_path / "x").rename(tmp_path / ".x.replaced")
    with pytest.raises(RuntimeError, match="half way"), stage(tmp_path / "x", replace=True):
        raise RuntimeError("half way")
    assert held(tmp_path) == {"x/manifest.json": b"old"}


@pytest.mark.usefixtures("without_exchange")
def test_a_failed_second_rename_puts_the_old_artifact_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "x", "old")
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if ".staging-" in path.name:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OutputError, match="cannot be published: Input/output error"):
        publish(tmp_path / "x", "new", replace=True)
    assert held(tmp_path) == {"x/manifest.json": b"old"}


def test_the_command_line_tells_an_existing_output_and_exits_1(cli: Callable[..., Run], tiny: Path) -> None:
    cli("onnx", "--output", tiny).refused(1, f"{tiny} exists; replace it with --force")


def test_the_old_artifact_is_gone_after_a_replacement_even_if_large(tmp_path: Path) -> None:
    publish(tmp_path / "x", "old")
    for n in range(50):
        (tmp_path / "x" / f"{n}").mkdir()
        (tmp_path / "x" / f"{n}" / "file").write_bytes(b"x")
    publish(tmp_path / "x", "new", replace=True)
    assert held(tmp_path) == {"x/manifest.json": b"new"}
    shutil.rmtree(tmp_path / "x")


@pytest.mark.parametrize("name", [b"\xff", b"a" * 300])
def test_an_output_that_no_library_can_be_given_is_told_before_the_work(
    cli: Callable[..., Run], tmp_path: Path, name: bytes
) -> None:
    output = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    cli("onnx", "--output", output).refused(1, "is no path that can be written", "choose another --output")
    assert not names(tmp_path)
