from __future__ import annotations

import json
import re
import runpy
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message
from email.policy import default as default_policy
from pathlib import Path

from gpt_export.version import __version__

from tests.environments.conftest import ROOT, started_in


def test_the_wheel_holds_both_packages_their_data_and_the_licences(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "gpt_export/__init__.py",
        "gpt_export/py.typed",
        "gpt_export/cli/__init__.py",
        "gpt_export/passes/__init__.py",
        "gpt_export/serving/web/index.html",
        "gpt_export/serving/web/worker.js",
        "gpt_export/serving/web/package.json",
        "gpt_export_models/__init__.py",
        "gpt_export_models/py.typed",
        "gpt_export_models/checkpoints/__init__.py",
        "gpt_export_models/data/vocab.bpe",
        "gpt_export_models/data/LICENSE-gpt2.txt",
    } <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("node_modules" in name for name in names)


def test_the_wheel_takes_two_names_and_no_others(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    assert {name.partition("/")[0] for name in archive.namelist()} == {
        "gpt_export",
        "gpt_export_models",
        f"gpt_export-{__version__}.dist-info",
    }
    top_level = archive.read(f"gpt_export-{__version__}.dist-info/top_level.txt").decode()
    assert top_level.split() == ["gpt_export", "gpt_export_models"]


def test_the_description_has_no_link_that_leads_nowhere_on_an_index(wheel: Path) -> None:
    message = metadata(wheel)
    text = message.get_payload()
    assert message["Description-Content-Type"] == "text/markdown"
    assert "# gpt-export" in text
    assert "docs/parity.md" in text
    assert relative_links(text) == []
    assert relative_links((ROOT / "README.md").read_text("utf-8"))  # where they lead to files


def test_the_metadata_has_addresses_and_the_extra_for_transformers(wheel: Path) -> None:
    message = metadata(wheel)
    addresses = [line.partition(", ")[2] for line in message.get_all("Project-URL", [])]
    assert addresses
    assert all(address.startswith("https://") for address in addresses)
    assert "hf" in message.get_all("Provides-Extra", [])
    assert any(line.startswith("transformers") and "hf" in line for line in message.get_all("Requires-Dist", []))


def test_a_stated_repository_makes_the_readmes_links_and_pictures_absolute() -> None:
    described = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["description_of"]
    readme = (ROOT / "README.md").read_text("utf-8")
    text = described(readme, "https://git.example/gpt-export/")
    assert relative_links(text) == []
    assert len(links(text)) == len(links(readme))
    assert "](https://git.example/gpt-export/blob/HEAD/docs/cli.md)" in text
    assert "](https://git.example/gpt-export/raw/HEAD/docs/images/report.png)" in text
    assert 'srcset="https://git.example/gpt-export/raw/HEAD/docs/images/web-dark.png"' in text


def test_the_readme_links_to_files_that_are_there() -> None:
    for link in relative_links((ROOT / "README.md").read_text("utf-8")):
        assert (ROOT / link.partition("#")[0]).is_file(), link


def metadata(wheel: Path) -> Message:
    return message_from_bytes(
        zipfile.ZipFile(wheel).read(f"gpt_export-{__version__}.dist-info/METADATA"), policy=default_policy
    )


def links(text: str) -> list[str]:
    """Where Markdown and HTML in it lead."""
    return re.findall(r"\]\(([^)]+)\)|\b(?:src|srcset|href)=\"([^\"]+)\"", text)


def relative_links(text: str) -> list[str]:
    found = ["".join(pair) for pair in links(text)]
    return [link for link in found if not re.match(r"https?:|#", link)]


def test_the_installed_wheel_tells_its_version(
    wheel_environment: Path, run_in: Callable[..., str], tmp_path: Path
) -> None:
    assert __version__ in run_in(
        wheel_environment, str(wheel_environment.with_name("gpt-export")), "--version", cwd=tmp_path
    )


def test_the_installed_wheel_brings_its_vocabulary(
    wheel_environment: Path, run_in: Callable[..., str], tmp_path: Path
) -> None:
    code = "from gpt_export_models.tokenizer import encode; print(encode('Every effort moves you', 8))"
    assert run_in(wheel_environment, "-c", code, cwd=tmp_path).strip() == "[6109, 3626, 6100, 345]"


def test_the_installed_wheel_exports(wheel_environment: Path, run_in: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "import gpt_export\n"
        "import gpt_export_models\n"
        "print(gpt_export.__file__, gpt_export_models.__file__)\n"
        "class Mine(torch.nn.Module):\n"
        "    context_length = 12\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.emb = torch.nn.Embedding(29, 4)\n"
        "        self.head = torch.nn.Linear(4, 29)\n"
        "    def forward(self, ids: torch.Tensor) -> torch.Tensor:\n"
        "        return self.head(self.emb(ids))\n"
    )
    script = str(wheel_environment.with_name("gpt-export"))
    done = started_in(wheel_environment, script, "onnx", "mine:Mine", "--output", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (where,) = (line for line in done.stderr.splitlines() if "gpt_export_models" in line)  # what user code prints
    for path in where.split():
        assert Path(path).is_relative_to(wheel_environment.parents[1]), path
    assert json.loads(done.stdout)["manifest"]["parity"]["passed"] is True
    assert (
        "PASS" in run_in(wheel_environment, script, "validate", "out", "--against", "mine:Mine", cwd=tmp_path).upper()
    )
