"""That the zoo is what its entries say: every claim of an entry is asked of the module's own eager code."""

import functools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tests.zoo import Animal, animals, find
from tests.zoo.oracle import logits_of

RUNNING = [animal for animal in animals() if animal.builds]
BROKEN = [animal for animal in animals() if not animal.builds]
SAME = 1e-4
"""Products of other shapes round otherwise; the zoo's logits are about 1, and what is not the same is off by 0.1."""


def ids_of(animal: Animal, rows: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng(length).integers(0, animal.vocab, (rows, length))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads only wait for each other on modules as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def grown(name: str) -> nn.Module:
    return find(name).make()


def test_there_are_enough_of_every_kind() -> None:
    kinds = Counter(animal.kind for animal in animals() if animal.exports)
    assert sum(kinds.values()) >= 80
    assert kinds["the book's classes"] >= 17
    assert len(kinds) >= 15


@pytest.mark.parametrize("animal", RUNNING, ids=str)
def test_what_comes_out_has_the_shape_of_its_entry(animal: Animal) -> None:
    module = grown(animal.name)
    for rows, length in ((1, 1), (2, 5), (1, animal.context)):
        classes = animal.classes or animal.vocab
        logits = logits_of(module, ids_of(animal, rows, length))
        if animal.name == "nanogpt_padded_vocabulary":
            classes = 128
        expected = {"logits": (rows, length, classes), "last": (rows, 1, classes), "pooled": (rows, classes)}
        assert logits.shape == expected["logits" if animal.output == "classes" else animal.output]
        assert np.isfinite(logits).all()


@pytest.mark.parametrize("animal", RUNNING, ids=str)
def test_it_is_the_same_model_twice_exactly_where_its_entry_says_so(animal: Animal) -> None:
    ids = ids_of(animal, 2, 9)
    first, second = (logits_of(module, ids) for module in (grown(animal.name), animal.make()))
    assert np.array_equal(first, second) == animal.deterministic
    assert first.std() > 0.05, "logits that are all alike tell no fault"


@pytest.mark.parametrize("animal", [a for a in RUNNING if a.output in ("logits", "classes")], ids=str)
def test_later_tokens_change_earlier_logits_exactly_where_its_entry_says_so(animal: Animal) -> None:
    module, ids = grown(animal.name), ids_of(animal, 2, 12)
    later = ids.copy()
    later[:, 7:] = (later[:, 7:] + 5) % animal.vocab
    moved = np.abs(logits_of(module, ids) - logits_of(module, later))
    assert (moved[:, :7].max() < SAME) == animal.causal
    assert moved[:, 7:].max() > SAME, "it does not read its tokens"


@pytest.mark.parametrize("animal", [a for a in RUNNING if a.output in ("logits", "classes")], ids=str)
def test_earlier_tokens_matter_and_the_rest_of_the_text_only_where_its_entry_says_so(animal: Animal) -> None:
    module, ids = grown(animal.name), ids_of(animal, 1, 40)
    whole, prefix = logits_of(module, ids), logits_of(module, ids[:, :11])
    assert (np.abs(whole[:, :11] - prefix).max() < SAME) == animal.by_prefix
    other = ids.copy()
    other[:, 8] = (other[:, 8] + 5) % animal.vocab
    assert np.abs(logits_of(module, other) - whole)[:, 9].max() > SAME, "it does not look back"


@pytest.mark.parametrize("animal", RUNNING, ids=str)
def test_rows_of_a_batch_are_apart_exactly_where_its_entry_says_so(animal: Animal) -> None:
    module, ids = grown(animal.name), ids_of(animal, 3, 9)
    together, alone = logits_of(module, ids), logits_of(module, ids[1:2])
    assert (np.abs(together[1:2] - alone).max() < SAME) == animal.independent_rows


def runs(animal: Animal) -> bool:
    """Whether it gives logits of every position for ids of two lengths."""
    try:
        module = animal.make()
        return all(logits_of(module, ids_of(animal, 2, n)).shape == (2, n, animal.vocab) for n in (5, 9))
    except (Exception, SystemExit):  # each fails in its own way
        return False


@pytest.mark.parametrize("animal", BROKEN, ids=str)
def test_what_is_said_not_to_run_does_not(animal: Animal) -> None:
    assert not runs(animal)
