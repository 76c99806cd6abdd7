"""Where the page's packages are looked for, and what is said when they are nowhere."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from gpt_export.errors import ServeError
from gpt_export.serving import packages
from gpt_export.serving.packages import NEEDED, VARIABLE, find_packages


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder without packages above it, an empty cache, and no folder of the page's own."""
    here = tmp_path / "project" / "deep"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(packages, "_page_modules", lambda: tmp_path / "page" / "node_modules")
    return tmp_path


def install(folder: Path, names: tuple[str, ...] = NEEDED) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


def test_missing_packages_are_told_with_the_command_that_installs_them(tmp_path: Path) -> None:
    with pytest.raises(ServeError) as caught:
        find_packages()
    wanted = json.loads(files("gpt_export").joinpath("serving/web/package.json").read_text(encoding="utf-8"))[
        "dependencies"
    ]
    assert set(wanted) == {"onnxruntime-web", "@huggingface/tokenizers"}
    for name, version in wanted.items():
        assert f"{name}@{version}" in str(caught.value)
    assert f"npm install --ignore-scripts --prefix {tmp_path / 'cache' / 'gpt-export'} " in str(caught.value)


@pytest.mark.parametrize(
    "where",
    [
        "project/deep/node_modules",
        "project/node_modules",
        "page/node_modules",
        "cache/gpt-export/node_modules",
    ],
)
def test_every_place_is_looked_into(tmp_path: Path, where: str) -> None:
    install(tmp_path / where)
    assert find_packages() == {name: tmp_path / where / name for name in NEEDED}


def test_a_place_that_lacks_a_file_is_passed_over(tmp_path: Path) -> None:
    install(tmp_path / "project" / "node_modules", NEEDED[:-1])
    with pytest.raises(ServeError):
        find_packages()
    install(tmp_path / "cache" / "gpt-export" / "node_modules")
    assert find_packages()[NEEDED[0]].is_relative_to(tmp_path / "cache")


@pytest.mark.parametrize("how", ["node_modules", "its folder", "a package of it"])
def test_a_named_folder_comes_before_all_others(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "project" / "node_modules")
    mine = install(tmp_path / "mine" / "node_modules")
    named = {"node_modules": mine, "its folder": mine.parent, "a package of it": mine / "onnxruntime-web"}[how]
    assert find_packages(named)[NEEDED[0]].is_relative_to(mine)
    monkeypatch.setenv(VARIABLE, str(named))
    assert find_packages()[NEEDED[0]].is_relative_to(mine)


def test_a_named_folder_without_them_is_not_replaced_by_another(tmp_path: Path) -> None:
    install(tmp_path / "project" / "node_modules")
    with pytest.raises(ServeError, match="empty"):
        find_packages(tmp_path / "empty")
