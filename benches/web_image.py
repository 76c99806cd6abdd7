"""The picture of the page of `gpt-export serve` in the README: an export of SOURCE, continued in a headless Chromium.

python -m benches.web_image SOURCE [--prompt TEXT] [--output docs/images/web.png] [--dark]
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.stages import export
from gpt_export.serving.open import open_server
from gpt_export.sources.names import read_source

from tests.browser.chromium import Page, chromium

WIDTH, SCALE = 1100, 0.9
"""CSS pixels, and device pixels for each: about as wide as a README is shown."""
IMAGE = Path("docs/images/web.png")
PACKAGES = Path(".consumers/node/node_modules")
WAIT_S = 120


def main() -> None:
    """Exports, serves, types the prompt and takes the picture."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("source")
    arguments.add_argument("--prompt", default="Then the king answered and said")
    arguments.add_argument("--output", type=Path, default=IMAGE)
    arguments.add_argument("--dark", action="store_true")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artifact = export(read_source(options.source), ExportConfig(), Path(folder) / "artifact")
        with open_server(artifact.folder, node_modules=PACKAGES) as (server, url), chromium() as page:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            take(page, url, options.prompt, options.output, dark=options.dark)
            server.shutdown()
    print(f"{options.output}: {options.output.stat().st_size / 1e3:.0f} kB")


def take(page: Page, url: str, prompt: str, output: Path, *, dark: bool) -> None:
    """The page once it has continued the prompt by drawing from the 20 likeliest."""
    page.open(url, width=WIDTH, dark=dark)
    wait(page)
    page.evaluate(
        f"""(() => {{
          const set = (id, value) => document.querySelector(id).value = value;
          set("#prompt", {prompt!r}); set("#temperature", 0.8); set("#top-k", 20); set("#count", 48);
          document.querySelector("#go").click();
        }})()"""
    )
    wait(page)
    page.evaluate("document.querySelector('[data-step=\"9\"]').click(); document.activeElement.blur()")
    bottom = page.evaluate("document.querySelector('main').getBoundingClientRect().bottom")
    page.resize(WIDTH, int(bottom) + 24, scale=SCALE)
    page.settle()
    page.screenshot(output)


def wait(page: Page) -> None:
    """Returns when the page takes a prompt."""
    deadline = time.monotonic() + WAIT_S
    while page.evaluate("document.querySelector('#go').disabled"):
        if time.monotonic() > deadline:
            raise TimeoutError(page.evaluate("document.querySelector('#error').textContent"))
        time.sleep(0.1)


if __name__ == "__main__":
    main()
