"""The page of `gpt-export serve` in Chromium: eager's tokens, alone on this machine, for everyone's hands and eyes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from gpt_export.artifact.variant_names import VARIANTS
from gpt_export.gate.limits import LIMITS
from gpt_export.runtime.session import Session
from gpt_export_models.tokenizer import Gpt2Tokenizer

from tests.browser.chromium import find_chromium
from tests.browser.contrast import LOW_CONTRAST
from tests.conftest import GPT_EXPORT
from tests.consumers.conftest import Record
from tests.consumers.exported import STEPS, Exported
from tests.consumers.javascript.conftest import Script

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="chromium is not installed: apt-get install chromium")

PROMPT = "Every effort moves you"
Visit = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def serve(node_folder: Path) -> Iterator[Callable[[Path], str]]:
    """The URL of an artifact's page, served by the command in a process of its own."""
    running: dict[Path, tuple[subprocess.Popen[str], str]] = {}

    def start(folder: Path) -> str:
        if folder not in running:
            command = [GPT_EXPORT, "serve", str(folder), "--port", "0", "--no-browser"]
            command += ["--node-modules", str(node_folder / "node_modules")]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            running[folder] = process, process.stdout.readline().strip()
        return running[folder][1]

    yield start
    for process, _ in running.values():
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def visit(ask: Script, serve: Callable[[Path], str]) -> Visit:
    """What a scenario of page.mjs saw on an artifact's page. Every visit is quiet and stays on this server."""

    def go(scenario: str, folder: Path, *, query: str = "", noisy: bool = False, **more: Any) -> dict[str, Any]:
        url = serve(folder)
        request = {
            "url": url + query,
            "chromium": find_chromium(),
            "scenario": scenario,
            "prompt": PROMPT,
            "count": STEPS,
        }
        found = dict(ask("page", request | more))
        assert len(found["requests"]) > 10
        hosts = {urlsplit(asked).netloc for asked in found["requests"] if not asked.startswith("blob:")}
        assert hosts == {urlsplit(url).netloc}
        if not noisy:
            assert found["console"] == []
            assert found["failed"] == []
        return found

    return go


@pytest.fixture(scope="module")
def gpt2(exported: Callable[[str], Exported]) -> Exported:
    return exported("gpt2")


@pytest.fixture(scope="module")
def eager(gpt2: Exported) -> list[int]:
    """The eager model's next tokens after `PROMPT`."""
    return gpt2.eager([Gpt2Tokenizer().encode(PROMPT)])[0]


def test_the_page_writes_eagers_tokens(visit: Visit, gpt2: Exported, eager: list[int], compatibility: Record) -> None:
    found = visit("generate", gpt2.folder)
    assert found["ids"] == eager
    assert found["text"] == PROMPT + Gpt2Tokenizer().decode(eager)
    assert re.fullmatch(rf"tokens a second[\d.]+to the first token[\d.]+ m?stokens{STEPS}", found["speed"])
    version = found["engine"].split()[1].rstrip(",")
    compatibility(
        consumer="onnxruntime-web", version=version, variant="fp32", outcome="pass", what="prompt, in Chromium"
    )


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "fp32"])
def test_variants_write_what_plain_onnxruntime_gives_or_its_equal(
    variant: str, visit: Visit, fast: Exported, compatibility: Record
) -> None:
    found = visit("generate", fast.folder, query=f"?variant={variant}")
    prompt = Gpt2Tokenizer().encode(PROMPT)
    assert len(found["ids"]) == STEPS
    # WebAssembly's kernels round what they read in other ways: of two tokens that the gate calls a tie, either will do.
    logits = Session.open(fast.folder, variant=variant).logits([prompt + found["ids"]])[0, len(prompt) - 1 : -1]
    behind = logits.max(axis=1) - logits[np.arange(STEPS), found["ids"]]
    assert behind.max() <= (LIMITS[variant].tie_nats or 0.0)
    version = found["engine"].split()[1].rstrip(",")
    compatibility(consumer="onnxruntime-web", version=version, variant=variant, outcome="pass", what="a prompt")


def test_drawing_is_the_default_and_a_seed_repeats_it(visit: Visit, gpt2: Exported, eager: list[int]) -> None:
    words = Gpt2Tokenizer().decode(eager)
    found = visit("seed", gpt2.folder, stop=words[5:9])
    assert found["defaults"] == ["0.8", "20"]
    first, second = (run["ids"] for run in found["runs"])
    assert first == second != eager
    told = found["stopped"]["text"].removeprefix(PROMPT).partition(" — ")
    assert told[0] == words[: words.index(words[5:9])]
    assert told[2] == "in front of the stop"


def test_it_goes_on_from_what_is_there_and_copies_it(visit: Visit, gpt2: Exported) -> None:
    found = visit("goOn", gpt2.folder)
    assert found["before"] is False
    assert found["prompt"].startswith(PROMPT)
    assert found["copied"] == found["text"]
    assert found["text"].startswith(found["prompt"])
    assert len(found["ids"]) == STEPS


def test_an_old_error_does_not_stand_beside_a_new_one(visit: Visit, gpt2: Exported) -> None:
    found = visit("invalid", gpt2.folder)
    assert "empty" in found["old"]
    assert found["now"] is None


def test_threads_are_there_because_the_page_is_isolated(visit: Visit, gpt2: Exported) -> None:
    found = visit("generate", gpt2.folder, count=1)
    assert found["isolated"] is True
    assert "thread" in found["engine"]


def test_the_top_5_are_eagers(visit: Visit, gpt2: Exported, eager: list[int]) -> None:
    found = visit("generate", gpt2.folder)
    row = gpt2.logits(np.array([Gpt2Tokenizer().encode(PROMPT) + eager[:-1]], np.int64))[0, -1].astype(np.float64)
    probability = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
    best = np.argsort(-row)[:5]
    assert [item["taken"] for item in found["top"]] == [True, False, False, False, False]
    signs = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})
    words = [Gpt2Tokenizer().decode([int(i)]).translate(signs) for i in best]
    assert [item["word"] for item in found["top"]] == words
    for item, share in zip(found["top"], probability[best], strict=True):
        assert item["share"] == pytest.approx(share, abs=0.006)


def test_no_mouse_is_needed(visit: Visit, gpt2: Exported, eager: list[int]) -> None:
    found = visit("keyboard", gpt2.folder)
    assert found["ids"] == eager
    assert found["focus"] == "go"  # it went to the stop button and came back
    assert found["first"]["step"].startswith(f"1 of {STEPS}: ")
    assert found["first"]["top"] != found["top"]
    assert found["table"] is True
    assert found["reached"][0]["id"] == "skip"
    assert [stop["id"] for stop in found["reached"] if not stop["outline"]] == []


def test_a_text_can_be_stopped(visit: Visit, gpt2: Exported) -> None:
    found = visit("stop", gpt2.folder, count=60)
    assert 3 <= len(found["ids"]) < 60
    assert "Stopped" in found["status"]


def test_a_text_ends_where_the_context_is_full(visit: Visit, gpt2: Exported) -> None:
    found = visit("generate", gpt2.folder, prompt=" a" * 60, count=20)
    assert len(found["ids"]) == 64 - 60 + 1
    assert "context is full" in found["status"]


def test_a_long_prompt_is_read_in_pieces(visit: Visit, exported: Callable[[str], Exported]) -> None:
    made = exported("padded")
    prompt = PROMPT + " and so on" * 13
    ids = Gpt2Tokenizer().encode(prompt)
    assert len(ids) > 40
    count = min(64 - len(ids), STEPS)
    assert visit("generate", made.folder, prompt=prompt, count=count)["ids"] == made.eager([ids])[0][:count]


def test_a_temperature_draws_and_top_k_narrows(visit: Visit, gpt2: Exported, eager: list[int]) -> None:
    found = visit("sample", gpt2.folder)
    assert found["one"]["ids"] == eager
    assert found["many"]["ids"] != eager


def test_screen_readers_are_told_what_was_written(visit: Visit, gpt2: Exported, eager: list[int]) -> None:
    found = visit("generate", gpt2.folder, count=5)
    assert Gpt2Tokenizer().decode(eager[:5]).strip() in found["status"]
    assert "Done." in found["status"]


def test_what_cannot_be_continued_is_a_sentence(visit: Visit, gpt2: Exported, eager: list[int]) -> None:
    found = visit("refuse", gpt2.folder, prompts=["", " a" * 65])
    assert found["errors"] == [
        "The prompt is empty; type at least one character.",
        "The prompt has 65 tokens, the model's context 64; shorten it.",
    ]
    assert found["after"]["ids"] == eager[:5]
    assert found["gone"] is None


def test_a_model_of_ids_takes_ids(visit: Visit, exported: Callable[[str], Exported]) -> None:
    made = exported("ids")
    (prompt,) = made.one
    found = visit("refuse", made.folder, prompts=["word", "257", "1.5"], prompt=" ".join(map(str, prompt)))
    assert all(" is no id of this model" in error for error in found["errors"])
    assert found["after"]["ids"] == made.eager([prompt])[0][:5]


def test_a_tokenizer_that_was_carried_is_used(visit: Visit, exported: Callable[[str], Exported]) -> None:
    made = exported("carried")
    assert visit("generate", made.folder, prompt="héllo")["ids"] == made.eager([list("héllo".encode())])[0]


def test_a_graph_without_a_cache_is_run_too(visit: Visit, exported: Callable[[str], Exported]) -> None:
    made = exported("uncached")
    assert visit("generate", made.folder, prompt="hello")["ids"] == made.eager([list(b"hello")])[0]


def test_another_folder_can_be_picked_from_the_disk(
    visit: Visit, gpt2: Exported, exported: Callable[[str], Exported]
) -> None:
    other = exported("carried")
    name = json.loads((other.folder / "manifest.json").read_text("utf-8"))["name"]
    found = visit("pick", gpt2.folder, picked=str(other.folder), name=name, prompt="hello")
    assert found["name"] == name
    assert found["ids"] == other.eager([list(b"hello")])[0]


def test_a_damaged_artifact_is_not_run(visit: Visit, exported: Callable[[str], Exported], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported("carried").folder, tmp_path / "damaged"))
    graph = folder / "onnx/model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00\x01"[graph.read_bytes()[-1] == 0 :][:1])
    found = visit("broken", folder)
    assert found["error"].startswith("onnx/model.onnx was altered (its SHA-256 differs)")
    assert found["enabled"] is False
    graph.write_bytes(graph.read_bytes()[:-1])
    assert "bytes, not" in visit("broken", folder)["error"]


def test_paths_outside_the_artifact_are_refused_to_the_page(visit: Visit, gpt2: Exported) -> None:
    paths = ["/artifact/manifest.json", "/artifact/../secret", "/artifact/%2e%2e/%2e%2e/etc/passwd", "/etc/passwd"]
    found = visit("fetch", gpt2.folder, paths=paths, noisy=True)
    assert found["statuses"] == [200, 404, 404, 404]


def test_the_report_opens_without_script_and_with_its_style(visit: Visit, gpt2: Exported) -> None:
    found = visit("report", gpt2.folder)
    assert found["title"] == json.loads((gpt2.folder / "manifest.json").read_text("utf-8"))["name"]
    assert found["styled"] == 1


def test_a_field_without_its_label_is_found(visit: Visit, gpt2: Exported) -> None:
    # The control of the next test.
    assert "label" in visit("unlabelled", gpt2.folder)["violations"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_everyone_can_read_and_use_the_page(visit: Visit, gpt2: Exported, width: int, dark: bool) -> None:
    found = visit("look", gpt2.folder, width=width, dark=dark, contrast=LOW_CONTRAST)
    assert found["violations"] == []
    assert {"label", "button-name", "color-contrast", "html-has-lang", "document-title"} <= set(found["passes"])
    assert found["contrast"] == []
    assert found["overflow"] <= 0
    lightness = sum(map(int, found["background"].removeprefix("rgb(").removesuffix(")").split(","))) / 3
    assert lightness < 40 if dark else lightness > 230
    for part in ('textbox "Prompt"', 'combobox "Variant"', 'button "Continue"', 'slider "Step"', "banner", "main"):
        assert part in found["tree"], part
