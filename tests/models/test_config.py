from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import gpt_export_models
import pytest
from gpt_export_models import GPT_CONFIG_124M, ConfigError, GPTConfig
from gpt_export_models.config import as_config
from hypothesis import given
from hypothesis import strategies as st

WITH_EVERY_FIELD = GPT_CONFIG_124M | {
    "hidden_dim": 100,
    "activation": "gelu_erf",
    "norm_eps": 1e-6,
    "linear_bias": False,
    "norm_bias": False,
    "tied_head": True,
}


def test_124m_has_exactly_the_books_keys_and_values() -> None:
    assert GPT_CONFIG_124M == {
        "vocab_size": 50257,
        "context_length": 1024,
        "emb_dim": 768,
        "n_heads": 12,
        "n_layers": 12,
        "drop_rate": 0.1,
        "qkv_bias": False,
    }
    assert next(iter(GPT_CONFIG_124M)) == "vocab_size"
    assert GPT_CONFIG_124M["qkv_bias"] is False
    assert type(GPT_CONFIG_124M["drop_rate"]) is float


def test_124m_round_trips_to_the_same_dict_in_the_same_order() -> None:
    assert list(GPTConfig.from_dict(GPT_CONFIG_124M).to_dict().items()) == list(GPT_CONFIG_124M.items())


def test_every_field_survives_the_round_trip() -> None:
    config = GPTConfig.from_dict(WITH_EVERY_FIELD)
    assert {field.name for field in dataclasses.fields(config)} == set(WITH_EVERY_FIELD)
    assert config.to_dict() == WITH_EVERY_FIELD
    assert GPTConfig.from_dict(config.to_dict()) == config


@given(
    heads=st.integers(1, 8),
    width=st.integers(1, 8),
    layers=st.integers(1, 4),
    vocab=st.integers(1, 70000),
    drop=st.floats(0, 0.99),
    bias=st.booleans(),
)
def test_any_valid_configuration_round_trips(
    heads: int, width: int, layers: int, vocab: int, drop: float, bias: bool
) -> None:
    values = {
        "vocab_size": vocab,
        "context_length": 8,
        "emb_dim": heads * width,
        "n_heads": heads,
        "n_layers": layers,
        "drop_rate": drop,
        "qkv_bias": bias,
    }
    config = GPTConfig.from_dict(values)
    assert config.to_dict() == values
    assert config.head_dim == width


def test_a_config_is_frozen() -> None:
    config = GPTConfig.from_dict(GPT_CONFIG_124M)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.emb_dim = 1  # type: ignore[misc]


def test_as_config_takes_a_dict_or_a_config() -> None:
    config = GPTConfig.from_dict(GPT_CONFIG_124M)
    assert as_config(config) is config
    assert as_config(GPT_CONFIG_124M) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vocab_size": 0}, ["vocab_size", "at least 1", "0"]),
        ({"vocab_size": "50257"}, ["vocab_size", "whole number", "'50257'"]),
        ({"context_length": -4}, ["context_length", "-4"]),
        ({"context_length": 1024.0}, ["context_length", "1024.0"]),
        ({"n_layers": True}, ["n_layers", "True"]),
        ({"emb_dim": 770}, ["emb_dim 770", "12 heads"]),
        ({"n_heads": 0}, ["n_heads", "0"]),
        ({"drop_rate": 1}, ["drop_rate", "0 to below 1", "1"]),
        ({"drop_rate": -0.1}, ["drop_rate", "-0.1"]),
        ({"drop_rate": float("nan")}, ["drop_rate", "nan"]),
        ({"drop_rate": None}, ["drop_rate", "None"]),
        ({"qkv_bias": 0}, ["qkv_bias", "true or false", "0"]),
        ({"qkv_bias": "no"}, ["qkv_bias", "'no'"]),
        ({"hidden_dim": 0}, ["hidden_dim", "0"]),
        ({"activation": "relu"}, ["'relu'", "gelu_tanh", "gelu_erf"]),
        ({"norm_eps": 0}, ["norm_eps", "0"]),
        ({"tied_head": 1}, ["tied_head", "1"]),
        ({"dropout": 0.1, "emb_size": 3}, ["unknown keys dropout, emb_size", "drop_rate"]),
    ],
)
def test_an_impossible_value_is_refused_with_what_was_got_and_allowed(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        GPTConfig.from_dict(GPT_CONFIG_124M | change)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert caught.value.exit_code == 2


def test_missing_keys_are_all_named_at_once() -> None:
    values = {key: value for key, value in GPT_CONFIG_124M.items() if key not in ("n_heads", "emb_dim")}
    with pytest.raises(ConfigError, match="lacks emb_dim, n_heads"):
        GPTConfig.from_dict(values)


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        GPTConfig(50257, 1024, 768, 12, 12, 0.1, False)  # type: ignore[misc]


def test_the_configuration_is_at_hand_without_torch() -> None:
    code = "import sys; from gpt_export_models import GPT_CONFIG_124M, GPTConfig; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:

    with pytest.raises(AttributeError, match="no attribute 'GPT3'"):
        _ = gpt_export_models.GPT3
