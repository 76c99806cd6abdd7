from __future__ import annotations

from benches.checkpoints_doc import PAGE, render


def test_the_page_is_what_its_generator_makes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert render(page) == page, "run python -m benches.checkpoints_doc"
