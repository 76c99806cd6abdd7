"""The families of transformers as animals, so that whatever is asked of the zoo can be asked of them."""

from collections.abc import Iterator

from tests.zoo.animal import Animal
from tests.zoo.transformers_families import families

KIND = "families of transformers"


def family_animals() -> Iterator[Animal]:
    """An animal a family, in the order of the table."""
    for each in families():
        yield Animal(
            name=each.name,
            kind=KIND,
            target=f"transformers:{each.name}",
            make=each.make,
            cached=each.cached,
            because=each.because,
        )
