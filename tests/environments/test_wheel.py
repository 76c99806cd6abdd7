from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from gpt_export.version import __version__


def test_the_wheel_holds_both_packages_their_data_and_the_licences(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "exporter/gpt_export/__init__.py",
        "exporter/gpt_export/py.typed",
        "exporter/gpt_export/cli/__init__.py",
        "exporter/gpt_export/passes/__init__.py",
        "exporter/gpt_export/serving/web/index.html",
        "exporter/gpt_export/serving/web/worker.js",
        "exporter/gpt_export/serving/web/package.json",
        "models/gpt_export_models/__init__.py",
        "models/gpt_export_models/py.typed",
        "models/gpt_export_models/checkpoints/__init__.py",
        "models/gpt_export_models/data/vocab.bpe",
        "models/gpt_export_models/data/LICENSE-gpt2.txt",
    } <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("node_modules" in name for name in names)
    assert not any(name.startswith(("tests/", "benches/", "artifacts/")) for name in names)


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
        "print(exporter.__file__, models.__file__)\n"
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
    out = run_in(wheel_environment, script, "onnx", "mine:Mine", "--output", "out", "--json", cwd=tmp_path)
    where, _, body = out.partition("\n")
    for path in where.split():
        assert Path(path).is_relative_to(wheel_environment.parents[1]), path
    assert json.loads(body)["manifest"]["parity"]["passed"] is True
    assert (
        "PASS" in run_in(wheel_environment, script, "validate", "out", "--against", "mine:Mine", cwd=tmp_path).upper()
    )
