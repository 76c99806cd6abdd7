"""The card's metadata is what the hub takes, and its figures are the manifest's."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.targets import model_card
from gpt_export.targets.facts import Facts
from markdown_it import MarkdownIt

from tests.exporter.targets.manifests import facts, manifest


def card(of: Facts) -> str:
    return model_card.files(of)["README.md"].decode("utf-8")


def metadata(text: str) -> dict[str, Any]:
    """What Hugging Face's own class reads of a card."""
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub reads the card: pip install huggingface_hub")
    found = hub.ModelCard(text).data.to_dict()
    assert isinstance(found, dict)
    return found


def test_the_hub_reads_the_metadata() -> None:
    found = metadata(card(facts()))
    assert found["library_name"] == "onnx"
    assert found["license"] == "unknown"
    assert found["pipeline_tag"] == "text-generation"
    assert {"onnx", "gpt2", "text-generation"} <= set(found["tags"])


@pytest.mark.parametrize("kind", ["artifact_124m", "byte_original", "byte_variants", "ids_alone", "tiny_original"])
def test_every_card_has_tables_that_are_some(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    text = (folder / "README.md").read_text("utf-8")
    html = MarkdownIt("gfm-like", {"linkify": False}).render(text.split("---\n", 2)[2])
    assert html.count("<table>") == 2
    assert "|---" not in html
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    widths = [len(re.findall(r"<t[hd]", row)) for row in rows]
    assert set(widths) == {6, 7}
    assert all(re.findall(r"<t[hd][^>]*>[^<]", row) for row in rows)


def test_a_table_whose_delimiter_is_too_short_is_none() -> None:
    # The control: what the card once had, a header of three cells and a delimiter of two.
    assert "<table>" not in MarkdownIt("gfm-like", {"linkify": False}).render(
        "| a | b | c |\n|---|---|\n| 1 | 2 | 3 |\n"
    )


def test_the_licence_and_the_base_model_are_what_was_said() -> None:
    told = facts(export={"license": "apache-2.0", "base_model": "openai-community/gpt2"})
    found = metadata(card(told))
    assert (found["license"], found["base_model"]) == ("apache-2.0", "openai-community/gpt2")
    assert "under `apache-2.0`" in card(told)
    assert "base_model" not in metadata(card(facts()))
    assert card(facts()).count("--license") == 2  # never unknown without saying how to set it


@pytest.mark.parametrize("name", ["a: b\n---\nlicense: mit", "x`|y", "名前", '"', "---", "{{ 7 * 7 }}"])
def test_no_name_breaks_the_card(name: str) -> None:
    text = card(facts(name=name))
    assert metadata(text) == metadata(card(facts()))
    heading = next(line for line in text.splitlines() if line.startswith("# "))
    assert heading == f"# {model_card.one_line(name)}"
    assert not set('`|"{}') & set(heading)


def test_an_unverified_artifact_says_so() -> None:
    assert "The files were not compared with their source." in card(facts())


def test_the_figures_are_the_manifests(byte_original: Path) -> None:
    found = Artifact.open(byte_original).manifest
    assert found.parity is not None
    text = (byte_original / "README.md").read_text("utf-8")
    target = found.parity["targets"]["onnx"]
    expected = f"| onnx | {target['cases']} | {target['positions']} | {target['max_abs']:.2g} |"
    assert expected in text
    assert "before publication: passed" in text


def test_a_failed_comparison_is_not_hidden() -> None:
    figures = {"cases": 3, "positions": 9, "max_abs": 0.5, "kl_mean": 0.1, "top1_agreement": 0.5}
    machine = {"processor": "Some CPU", "instruction_set": "AVX2", "threads": 1, "cores": 2}
    parity = {"passed": False, "targets": {"onnx": figures}, "measured_on": machine}
    text = card(Facts.of(Path("nowhere"), dataclasses.replace(manifest("fp32"), parity=parity)))
    assert "Measured on Some CPU, AVX2, 1 thread on 2 cores" in text
    assert "before publication: FAILED" in text
    assert "50.00 %" in text


def test_every_variant_is_a_row_and_has_a_way_into_genai() -> None:
    text = card(facts("int4", "fp32", "int8", external=("fp32",)))
    rows = [line.split("|")[1].strip() for line in text.splitlines() if re.match(r"\| (fp|int)\d", line)]
    assert rows == ["fp32", "int8", "int4"]
    assert "| fp32 | `onnx/model.onnx` | 0.0 |" in text
    assert len(re.findall("config.overlay", text)) == 2


def test_the_vocabularys_licence_is_named_where_its_files_are() -> None:
    assert "LICENSE-gpt2.txt" in card(facts())
    assert "LICENSE-gpt2.txt" not in card(facts(tokenizer=None))


def test_a_model_of_ids_alone_is_loaded_with_ids() -> None:
    text = card(facts(tokenizer=None))
    assert "token ids" in text
    assert "tokenizer.json" not in text


def test_the_skeleton_is_not_called_a_text_generator(artifact_124m: Path) -> None:
    text = (artifact_124m / "README.md").read_text("utf-8")
    assert "pipeline_tag" not in metadata(text)
    assert "## Loading" in text
    assert "ORTModelForCausalLM" not in text
