"""Scoring and continuing where torch is not installed, and neither are the packages of the extras."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CODE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "ray", "pyarrow", "pandas"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from pathlib import Path
from gpt_export import scoring
from gpt_export.artifact.reading import Artifact
from gpt_export.runtime.generation import GenerationConfig
from gpt_export.scoring.corpus_generate import ContinueSettings, generate_into
from gpt_export.scoring.corpus_score import score_into
from gpt_export.scoring.inputs import open_prompts

artifact, folder = sys.argv[1], Path(sys.argv[2])
scores = scoring.score(artifact, ["a text", "another"], engine="inline", folder=folder / "scores")
print(score_into(scores, folder / "scores", compared=False)["documents"])
settings = ContinueSettings(config=GenerationConfig(max_new_tokens=2))
engine = scoring.EngineSettings(engine="inline")
prompts = open_prompts(str(folder / "in.jsonl"), "prompt")
print(generate_into(Artifact.open(artifact), prompts, folder / "out.jsonl", settings, engine).lines)
for engine in ("ray", "inline"):
    try:
        list(scoring.score(artifact, scoring.open_corpus([str(folder / "x.parquet")]), engine=engine))
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_without_torch_and_the_extras_a_corpus_is_scored_and_continued(byte_original: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "x.parquet").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(byte_original), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    documents, prompts, *refusals = done.stdout.splitlines()
    assert (documents, prompts) == ("2", "1")
    assert [line.partition(" ")[0] for line in refusals] == ["ConfigError", "ConfigError"]
    assert "pip install 'gpt-export[parquet]'" in refusals[1]
    assert not (tmp_path / "scores" / "documents.parquet").exists()
    lines = (tmp_path / "scores" / "documents.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["0", "1"]
