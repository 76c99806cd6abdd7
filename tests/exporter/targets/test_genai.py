"""genai_config.json names what the graph has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gpt_export.artifact.variant_names import VARIANTS
from gpt_export.errors import ArtifactError
from gpt_export.targets import genai
from gpt_export.targets.plan import FromArtifact

from tests.exporter.targets.manifests import facts


def config(*variants: str, **settings: Any) -> dict[str, Any]:
    return json.loads(genai.files(facts(*variants, **settings))["genai_config.json"])


def test_every_name_is_one_of_the_graphs() -> None:
    made = facts()
    found = config()["model"]["decoder"]
    layers = range(found["num_hidden_layers"])
    for kind in ("inputs", "outputs"):
        templates = found[kind].values()
        names = {name % layer for name in templates if "%d" in name for layer in layers}
        names |= {name for name in templates if "%d" not in name}
        assert names == {value["name"] for value in made.variants["fp32"][kind]}


def test_the_sizes_are_the_caches() -> None:
    found = config()["model"]["decoder"]
    assert (found["num_attention_heads"], found["num_key_value_heads"], found["head_size"]) == (4, 4, 8)
    assert found["hidden_size"] == 32
    assert config()["model"]["context_length"] == config()["search"]["max_length"] == 1024


@pytest.mark.parametrize("variants", [("int4", "fp32"), ("int4", "int8"), ("int4",)])
def test_the_first_precision_is_the_one_that_opens(variants: tuple[str, ...]) -> None:
    first = min(variants, key=VARIANTS.index)
    assert config(*variants)["model"]["decoder"]["filename"] == facts(*variants).variants[first]["path"]


@pytest.mark.parametrize("shared", [True, False])
def test_one_buffer_is_asked_for_only_where_the_graph_allows_it(shared: bool) -> None:
    assert config(shared_cache=shared)["search"]["past_present_share_buffer"] is shared
    assert config()["search"]["past_present_share_buffer"] is False


def test_an_overlay_names_the_other_file_and_its_buffer() -> None:
    variant = facts("fp32", "int4", shared_cache=True).variants["int4"]
    assert json.loads(genai.overlay(variant)) == {
        "model": {"decoder": {"filename": "onnx/model_q4.onnx"}},
        "search": {"past_present_share_buffer": True},
    }


def test_a_model_of_ids_alone_names_no_token() -> None:
    assert not {"eos_token_id", "bos_token_id", "pad_token_id"} & config(tokenizer=None)["model"].keys()


def test_a_package_holds_one_variant_and_the_tokenizer() -> None:
    made = facts("fp32", "int4", external=("int4",), files=("tokenizer.json", "config.json", "report.html"))
    plan = genai.package(made, "int4")
    copied = {content.path for content in plan.values() if isinstance(content, FromArtifact)}
    assert copied == {"onnx/model_q4.onnx", "onnx/model_q4.onnx_data", "tokenizer.json", "config.json"}
    config = plan["genai_config.json"]
    assert isinstance(config, bytes)
    assert json.loads(config)["model"]["decoder"]["filename"] == "onnx/model_q4.onnx"


def test_without_a_cache_there_is_no_package() -> None:
    assert genai.files(facts(cache=None)) == {}
    with pytest.raises(ArtifactError, match="needs a decoder with a cache"):
        genai.package(facts(cache=None), "fp32")
