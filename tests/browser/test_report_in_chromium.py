"""The page of a parity report in a real browser: quiet, alone, drawn, and readable in both colour schemes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gpt_export.report.page import report_html

from tests import reports
from tests.browser.chromium import Page, chromium, find_chromium
from tests.browser.contrast import LOW_CONTRAST

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="chromium is not installed: apt-get install chromium")

WIDTHS = (1280, 400)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module", params=["passed", "failed"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    over, fault_at = (0.2, None) if request.param == "passed" else (40.0, 5)
    found = reports.parity_report(over=over, fault_at=fault_at, long=500)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_html(found, reports.manifest()), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_quiet_and_asks_for_nothing(page: Page, report: Path, width: int, dark: bool) -> None:
    page.open(report, width=width, dark=dark)
    assert page.messages == []
    assert page.requests == [report.as_uri()]


def test_what_a_page_asks_for_and_complains_of_is_seen(page: Page, tmp_path: Path) -> None:
    # The control: without it, a listener that hears nothing would pass.
    (tmp_path / "loud.html").write_text('<img src="missing.png"><script>console.error("heard"); oops()</script>')
    page.open(tmp_path / "loud.html")
    for words in ("heard", "oops is not defined", "ERR_FILE_NOT_FOUND"):
        assert any(words in message for message in page.messages), words
    assert page.requests == [(tmp_path / name).as_uri() for name in ("loud.html", "missing.png")]


def test_every_point_lies_in_its_plot(page: Page, report: Path) -> None:
    page.open(report)
    plots = page.evaluate(
        """[...document.querySelectorAll("svg.plot")].map(plot => {
          const box = plot.getBoundingClientRect(), inside = (v, low, high) => v >= low - 1 && v <= high + 1;
          const points = [...plot.querySelectorAll(".point")].map(point => point.getBoundingClientRect());
          return {
            points: points.length,
            drawn: points.filter(p => p.width > 0 && inside(p.x + p.width / 2, box.left, box.right)
                                      && inside(p.y + p.height / 2, box.top, box.bottom)).length,
            width: Math.max(...points.map(p => p.x)) - Math.min(...points.map(p => p.x)),
            limits: [...plot.querySelectorAll("line.limit")].filter(l => l.getBoundingClientRect().width > 0).length,
          };
        })"""
    )
    onnx, torchscript, layers = plots
    assert (onnx["points"], torchscript["points"], layers["points"]) == (554, 20, 11)
    for plot in plots:
        assert plot["drawn"] == plot["points"]
        assert plot["limits"] == 1
        assert plot["width"] > 500


def test_the_limit_parts_what_passed_from_what_did_not(page: Page, report: Path) -> None:
    page.open(report)
    over = page.evaluate(
        """[...document.querySelectorAll("svg.plot")].map(plot => {
          const limit = plot.querySelector("line.limit").getBoundingClientRect().y;
          return [...plot.querySelectorAll(".point")]
            .filter(point => point.getBoundingClientRect().y + point.getBoundingClientRect().height / 2 < limit).length;
        })"""
    )
    failed = page.evaluate("document.body.className") == "failed"
    assert over == ([20, 20, 6] if failed else [0, 0, 0])


def test_a_kind_of_point_can_be_hidden(page: Page, report: Path) -> None:
    page.open(report)
    shown = "document.querySelectorAll('svg.plot')[0].querySelectorAll('.f-grid')[0].getBoundingClientRect().width > 0"
    assert page.evaluate(shown)
    page.evaluate("document.querySelector('.k-f-grid input').click()")
    assert not page.evaluate(shown)


def test_colours_follow_the_scheme(page: Page, report: Path) -> None:
    lightness = []
    for dark in (False, True):
        page.open(report, dark=dark)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        lightness.append(sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3)
    assert lightness[0] > 230
    assert lightness[1] < 40


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_can_be_read_on_what_is_behind_it(page: Page, report: Path, dark: bool) -> None:
    page.open(report, dark=dark)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate(LOW_CONTRAST) == []


def test_faint_text_is_found(page: Page, tmp_path: Path) -> None:
    (tmp_path / "faint.html").write_text('<body style="background: #fff"><p style="color: #999">faint</p>', "utf-8")
    page.open(tmp_path / "faint.html")
    assert page.evaluate(LOW_CONTRAST) == ["faint: 2.85"]


@pytest.mark.parametrize("width", [1280, 768, 400, 320])
def test_nothing_sticks_out_of_the_page(page: Page, report: Path, width: int) -> None:
    page.open(report, width=width)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    texts = page.evaluate(
        """[...document.querySelectorAll("svg.plot text")].filter(text => {
          const box = text.getBoundingClientRect();
          return box.left < 0 || box.right > innerWidth;
        }).map(text => text.textContent)"""
    )
    assert texts == []


def test_assistive_technology_finds_landmarks_headings_and_names(page: Page, report: Path) -> None:
    page.open(report)
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    nodes = [(_value(node, "role"), _value(node, "name")) for node in tree if not node.get("ignored")]
    roles = {role for role, _ in nodes}
    assert {"banner", "navigation", "main", "contentinfo", "table", "columnheader", "rowheader"} <= roles
    headings = [name for role, name in nodes if role == "heading"]
    assert headings[0] == "tiny"
    assert headings[1].startswith(("Passed.", "Failed."))
    assert "Error over layers" in headings
    pictures = [name for role, name in nodes if role in ("image", "img")]
    assert sum("in units of" in name for name in pictures) == 3
    assert all(name for role, name in nodes if role in ("link", "checkbox", "region", "table", "image", "img"))


def test_the_keyboard_reaches_links_tables_and_details(page: Page, report: Path) -> None:
    page.open(report)
    reached = []
    for _ in range(40):
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
    assert reached[0] == "skip"
    assert {"A", "scroll", "INPUT", "SUMMARY"} <= set(reached)


def test_details_are_printed_open(page: Page, report: Path) -> None:
    page.open(report)
    page.call("Emulation.setEmulatedMedia", media="print")
    page.settle()
    shown = "document.querySelector('.terms').checkVisibility({contentVisibilityAuto: true})"
    assert page.evaluate(shown)
    assert len(page.call("Page.printToPDF", printBackground=True)["data"]) > 10_000
    page.call("Emulation.setEmulatedMedia", media="screen")
    page.settle()
    assert not page.evaluate(shown)


def test_an_artifact_page_holds_what_its_parity_file_holds(page: Page, tiny: Path) -> None:
    page.open(tiny / "report.html")
    assert page.messages == []
    parity = json.loads((tiny / "parity.json").read_text(encoding="utf-8"))
    cases = {case["name"]: len(case["error_by_position"]) for case in parity["cases"]["onnx"]}
    drawn = page.evaluate(
        """Object.fromEntries([...document.querySelectorAll("[data-target=onnx] g[data-case]")]
          .map(group => [group.dataset.case, group.querySelectorAll(".point").length]))"""
    )
    assert drawn == cases


def _value(node: dict[str, Any], key: str) -> str:
    return str(node.get(key, {}).get("value", ""))
