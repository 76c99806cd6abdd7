"""The page of a parity report: what it says, that nothing breaks out of it, and that it needs nothing else."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from gpt_export.artifact.inspection import inspect_path
from gpt_export.artifact.inspection_text import inspection_text
from gpt_export.artifact.reading import Artifact
from gpt_export.gate.limits import LIMITS
from gpt_export.gate.report import CaseResult, WeightsResult
from gpt_export.report.figures import TIMES
from gpt_export.report.page import REPORT_NAME, report_html
from gpt_export.report.visible import visible

from tests import reports, samples
from tests.conftest import Run

VOID = {"meta", "link", "input", "wbr", "br"}
LEAVES = {"circle", "line", "rect", "path"}


class Parsed(HTMLParser):
    """Every element with its attributes, the text outside of the style, and whether the tags are balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.unbalanced += self._open
        self.text = re.sub(r"\s+", " ", "".join(self.texts))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in LEAVES, tag
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.texts.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """The attributes of the elements with this tag, whose `class_` has a word, or another attribute a value."""
        words = attributes.pop("class_", None)
        return [
            found
            for name, found in self.elements
            if name == tag
            and (words is None or words in found.get("class", "").split())
            and attributes.items() <= found.items()
        ]


def test_a_passed_report_says_so_first() -> None:
    page = Parsed(report_html(reports.parity_report(), reports.manifest()))
    main = page.text.partition("Skip to the verdict")[2]
    assert re.search(r"tiny .*?Passed\. The exported model computes what the original computes\.", main)
    assert "On 74 positions in 4 cases of fp32 and TorchScript, the largest difference of any logit is 20%" in main
    assert "All 10 weights are equal bit for bit." in main
    assert "It goes wrong" not in main


def test_a_failed_report_names_what_and_where() -> None:
    page = Parsed(report_html(reports.parity_report(over=40, fault_at=5), reports.manifest()))
    assert "Failed. The exported model does not compute what the original computes. 2 of 4 cases failed" in page.text
    assert "It goes wrong first in layer 1, attention" in page.text
    assert "Likely cause: attention weight is <transposed>." in page.text
    assert "logits differ by 0.004 where 0.0001 is allowed" in page.text
    assert len(page.all("mark")) == 4  # two tokens that changed places, in the duel and in the table


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (WeightsResult(checked=10, size_bytes=1, mismatches=("weight <w>: differs",)), "1 of 10 weights differ"),
        (None, "Passed."),
    ],
)
def test_weights_are_part_of_the_verdict(weights: WeightsResult | None, words: str) -> None:
    page = Parsed(report_html(reports.parity_report(weights=weights), None, name="model.onnx"))
    assert words in page.text


def test_every_case_has_a_row_and_every_header_a_scope() -> None:
    page = Parsed(report_html(reports.parity_report(), reports.manifest()))
    assert len(page.all("table", class_="cases")) == 2
    assert all(header.get("scope") in ("col", "row", "rowgroup") for header in page.all("th"))
    for name in ("text", "cache-steps", "ids-repeated"):
        assert name in page.text
    assert page.text.count("stands for <more>") == 1


def test_every_position_and_every_layer_is_a_point_with_a_title() -> None:
    report = reports.parity_report()
    page = Parsed(report_html(report, reports.manifest()))
    positions = sum(len(result.error_by_position) for found in report.targets.values() for result in found)
    assert len(page.all("circle", class_="point")) == positions + len(report.layers)
    assert len(page.all("title")) == 1 + 3 + positions + len(report.layers)
    assert "text, position 3:" in page.text
    assert len(page.all("line", class_="limit")) == 3
    for svg in page.all("svg", class_="plot"):
        named = svg["aria-labelledby"].split()
        assert [tag for tag, found in page.elements if found.get("id") in named] == ["title", "desc"]


def test_ids_are_unique_and_links_lead_to_them() -> None:
    page = Parsed(report_html(reports.parity_report(over=40, fault_at=3), reports.manifest()))
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    references = [found["href"].removeprefix("#") for found in page.all("a")]
    references += [name for _, found in page.elements for name in found.get("aria-labelledby", "").split()]
    assert references
    assert set(references) <= set(ids)


def test_nothing_in_a_token_a_name_or_a_note_becomes_markup() -> None:
    nasty = "".join(reports.NASTY)
    report = reports.parity_report(over=40, fault_at=2, notes=(nasty,), layers_case=nasty)
    text = report_html(report, reports.manifest(nasty, source={"kind": nasty, nasty: nasty}))
    page = Parsed(text)
    assert page.unbalanced == []
    assert page.all("script") == page.all("img") == []
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]
    assert "{{ 7 * 7 }}" in page.text
    assert "49" not in page.text.partition("Notes")[2].partition("Cases")[0]
    assert not set(text) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
    assert text.encode("utf-8")  # which lone surrogates would refuse


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" a b", ["·", "a", "·", "b"]),
        ("a\r\n\t", ["a", "␍", "↵", "⇥"]),
        ("\x00\x1b\x7f\x85", ["␀", "␛", "␡", "U+0085"]),
        ("\ufffd\ud83d", ["�", "U+D83D"]),
        ("\u200b\u202e\u00a0", ["U+200B", "U+202E", "U+00A0"]),
        ("\u0301", ["◌\u0301"]),
        ("e\u0301", ["e\u0301"]),
        ("", ["(empty)"]),
        ("北風👩", ["北風👩"]),
    ],
)
def test_every_character_of_a_token_can_be_seen(text: str, shown: list[str]) -> None:
    assert [piece.text for piece in visible(text)] == shown


def test_ids_stand_for_tokens_without_a_tokenizer() -> None:
    page = Parsed(report_html(reports.parity_report(opened=reports.opened((None, None))), reports.manifest()))
    assert "#100" in page.text
    assert "#101" in page.text


def test_hashes_of_all_other_files_are_there() -> None:
    page = Parsed(report_html(reports.parity_report(), reports.manifest()))
    assert "a" * 64 in page.text
    assert "b" * 64 in page.text
    assert "c" * 64 not in page.text  # the page's own
    for word in ("onnxruntime", "1.32.0", "109.5 kB"):
        assert word in page.text


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (LIMITS["fp32"], [f"8 {TIMES} float32's own error = 0.0001", "differs by 1.7e-06 of the size"]),
        (
            LIMITS["fp32"].overridden(atol=1e-3, rtol=0.01),
            [f"0.001 + 0.01 {TIMES} |logit|", "in place of the measured limit"],
        ),
        (LIMITS["fp32"].overridden(kl=0.25, top1=0.9), ["at most 0.25 nats given by the user", "at least 90.00%"]),
    ],
)
def test_limits_say_how_they_were_set(limits: object, words: list[str]) -> None:
    page = Parsed(report_html(reports.parity_report(limits=limits), reports.manifest()))
    for word in words:
        assert word in page.text


def test_a_case_that_could_not_be_compared_says_why() -> None:
    faulty = CaseResult.faulty("grid-1x9", (1, 9), "", "does not run: <bad> shape")
    report = reports.parity_report(targets={"onnx": (faulty,)}, opened=None, layers=(), weights=None)
    page = Parsed(report_html(report, None, name="a.onnx"))
    assert "does not run: <bad> shape" in page.text
    assert "No case of this target could be compared." in page.text
    assert page.unbalanced == []


def test_values_without_a_place_on_a_logarithm_have_one() -> None:
    odd = reports.case_result("text", 4, over=math.inf, limit=0.0, error_by_position=(0.0, 1e300, 1e-300, 5.0))
    layers = tuple(replace(item, ratio=1e300) for item in reports.deviations())
    opened = reports.opened(("a", "b"))
    opened["tokens"][0]["error"] = math.nan
    report = reports.parity_report(targets={"onnx": (odd,)}, layers=layers, opened=opened)
    page = Parsed(report_html(report, None))
    places = [float(point["cy"].rstrip("%")) for point in page.all("circle", class_="point")]
    assert len(places) == 4 + len(layers)
    assert all(0 <= place <= 100 for place in places)


@pytest.mark.parametrize("positions", [2_000, 60_000])
def test_a_long_report_stays_below_a_megabyte(positions: int) -> None:
    page = report_html(reports.parity_report(long=positions), reports.manifest())
    assert len(page.encode()) < 1_000_000
    points = Parsed(page).all("circle", class_="point")
    assert len(points) > 1_000
    assert ("neighbouring positions" in page) == (positions > 2_000)


def test_neighbours_that_share_a_dot_show_the_worst_of_them() -> None:
    report = reports.parity_report(long=60_000)
    worst = report.targets["onnx"][-1].worst_index[1]
    title = next(
        text
        for text in re.findall(r"<title>(grid-1x60000, positions \d+ to \d+[^<]*)</title>", report_html(report, None))
        for first, last in [map(int, re.findall(r"\d+", text)[2:4])]
        if first <= worst <= last
    )
    assert title.endswith("the worst: 2e-05, 20% of the limit")


def test_the_page_asks_for_nothing() -> None:
    page = Parsed(report_html(reports.parity_report(over=40, fault_at=2), reports.manifest()))
    for tag, found in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            assert found.get(name, "#").startswith(("#", "data:,")), (tag, found)
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "base", "form", "image"}
    style = report_html(reports.parity_report(), None).partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "@font-face" not in style
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'")


def test_the_bytes_do_not_depend_on_the_process() -> None:
    code = (
        "import sys; from tests import reports; from gpt_export.report.page import report_html; "
        "sys.stdout.buffer.write(report_html(reports.parity_report(over=40, fault_at=2), reports.manifest()).encode())"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert made == {report_html(reports.parity_report(over=40, fault_at=2), reports.manifest()).encode()}


def test_what_is_exact_is_collapsed_and_counted_like_the_command_line() -> None:
    exact = reports.case_result("text", 4, over=0.0, max_abs=0.0, error_by_position=(0.0,) * 4, sqnr_db=None)
    report = reports.parity_report(targets={"onnx": (reports.case_result("text", 4),), "torchscript": (exact, exact)})
    page = Parsed(report_html(report, None, name="x"))
    assert "fp32: 1 case, 4 positions, all passed" in page.text
    assert "TorchScript: 2 cases, 8 positions, all exact" in page.text
    assert "Every case, each of them exact" in page.text
    assert "No position differs at all." in page.text
    assert "in 3 cases of fp32 and TorchScript" in page.text


def test_random_weights_are_said_to_be_some() -> None:
    manifest = reports.manifest()
    seeded = replace(manifest, source={"kind": "seeded", "name": "x", "seed": 1})
    said = "The weights were drawn at random"
    assert said in Parsed(report_html(reports.parity_report(), seeded)).text
    trained = replace(manifest, source={"kind": "checkpoint", "family": "huggingface", "name": "x"})
    assert said not in Parsed(report_html(reports.parity_report(), trained)).text


def test_an_artifact_has_its_page(tiny: Path) -> None:
    artifact = Artifact.open(tiny)
    artifact.verify()
    assert REPORT_NAME in artifact.manifest.files
    text = (tiny / REPORT_NAME).read_text(encoding="utf-8")
    page = Parsed(text)
    parity = json.loads((tiny / "parity.json").read_text(encoding="utf-8"))
    drawn = [found for found in parity["cases"].values() if any(case["max_abs"] for case in found)]
    assert drawn
    cases = [case for found in drawn for case in found]
    points = sum(len(case["error_by_position"]) for case in cases) + len(parity["layers"]["deviations"])
    assert len(page.all("circle", class_="point")) == points
    for path, entry in artifact.manifest.files.items():
        assert (entry["sha256"] in text) == (path != REPORT_NAME)
    assert str(tiny) not in text


def test_two_exports_have_the_same_page(export_tiny: Callable[..., Artifact], tmp_path: Path) -> None:
    pages = [export_tiny(samples.tiny_dummy(), tmp_path / name).folder / REPORT_NAME for name in ("one", "two")]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_a_gate_that_is_off_leaves_no_page(export_tiny: Callable[..., Artifact]) -> None:
    artifact = export_tiny(samples.tiny_dummy(), gate="off")
    assert not (artifact.folder / REPORT_NAME).exists()
    told = inspection_text(inspect_path(artifact.folder))
    assert told.startswith("was not compared  ")
    assert "judged against" not in told


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(29, 8)
        self.head = nn.Linear(8, 29)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.head(self.emb(ids))
        {line}
        return x

def make():
    torch.manual_seed(0)
    net = Net()
    net.context_length, net.vocab_size = 8, 29
    return net.eval()
"""


def test_a_failed_export_leaves_its_page_and_nothing_else(
    user_module: Callable[[str], str], cli: Callable[..., Run], tmp_path: Path
) -> None:
    name = user_module(MODULE.format(line="x = x if torch.jit.is_scripting() else 1.01 * x"))
    run = cli("onnx", f"{name}:make", "--output", tmp_path / "out", "--html", tmp_path / "failed.html")
    run.refused(3, "nothing was published")
    assert not (tmp_path / "out").exists()
    page = Parsed((tmp_path / "failed.html").read_text(encoding="utf-8"))
    assert "Failed. The exported model does not compute" in page.text
    assert "onnx/model.onnx" in page.text
    assert str(tmp_path) not in page.text


def test_html_beside_a_published_artifact_is_its_page(
    user_module: Callable[[str], str], cli: Callable[..., Run], tmp_path: Path
) -> None:
    name = user_module(MODULE.format(line="x = 2.0 * x"))
    copy = tmp_path / "copy.html"
    run = cli("onnx", f"{name}:make", "--output", tmp_path / "out", "--html", copy, "--json")
    assert run.code == 0, run.err
    assert run.json()["artifact"]
    assert copy.read_bytes() == (tmp_path / "out" / REPORT_NAME).read_bytes()
    again = tmp_path / "again.html"
    run = cli("validate", tmp_path / "out", "--against", f"{name}:make", "--html", again)
    assert run.code == 0, run.err
    assert again.read_bytes() == copy.read_bytes()


def test_pages_that_cannot_be_are_refused_before_the_work(cli: Callable[..., Run], tiny: Path, tmp_path: Path) -> None:
    assert cli("onnx", "--html", tmp_path / "none" / "a.html").code == 2
    assert cli("onnx", "--gate", "off", "--html", tmp_path / "a.html").code == 2
    assert cli("validate", tiny, "--html", tiny / REPORT_NAME).code == 2
    Artifact.open(tiny).verify()


def test_the_template_is_in_the_package() -> None:
    from importlib.resources import files

    assert {path.name for path in files("gpt_export").joinpath("report").iterdir()} >= {
        "report.html.jinja",
        "report.css",
    }


def test_variants_have_their_own_limits_and_no_plot_against_one_that_they_do_not_have() -> None:
    report = reports.parity_report()
    limits = LIMITS["int4"]
    figures = {"limit": None, "kl_mean": 0.03, "kl_limit": limits.kl_mean, "top1_limit": limits.top1}
    own = tuple(replace(case, **figures, perplexity_limit=0.03) for case in report.targets["onnx"])
    page = Parsed(report_html(replace(report, targets=report.targets | {"int4": own}), reports.manifest()))
    for words in ("mean KL at most 0.05 nats", "top-1 at least 90", "perplexity within 3.0%"):
        assert words in page.text
    assert "could be compared" not in page.text
    assert page.unbalanced == []
    known = {"reference_perplexity": 20.0, "candidate_perplexity": 20.01}
    known |= {"perplexity_tokens": 300, "vocab_size": 100}
    close = tuple(replace(case, **known, perplexity_limit=LIMITS["int8"].perplexity_change) for case in own)
    told = Parsed(report_html(replace(report, targets=report.targets | {"int8": close}), reports.manifest())).text
    assert "of ±0.5%" in told
    assert "±0%" not in told
    alone = Parsed(report_html(replace(report, targets={"int4": own}, opened=None), reports.manifest()))
    assert "Error over position" not in alone.text
    assert alone.unbalanced == []
