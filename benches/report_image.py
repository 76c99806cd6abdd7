"""The picture of a report.html in the README: an export of SOURCE, looked at in a headless Chromium.

python -m benches.report_image [SOURCE] [--output docs/images/report.png]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.stages import export
from gpt_export.report.page import REPORT_NAME
from gpt_export.sources.names import read_source

from tests.browser.chromium import chromium

WIDTH, SCALE = 1100, 0.9
"""CSS pixels, and device pixels for each: about as wide as a README is shown."""
SHOWN = "#positions ~ figure"
"""The picture ends below this."""
IMAGE = Path("docs/images/report.png")


def main() -> None:
    """Exports, opens the page and takes the picture."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("source", nargs="?", default="gpt2-124m")
    arguments.add_argument("--output", type=Path, default=IMAGE)
    arguments.add_argument("--dark", action="store_true")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artifact = export(read_source(options.source), ExportConfig(), Path(folder) / "artifact")
        with chromium() as page:
            report = artifact.folder / REPORT_NAME
            page.open(report, width=WIDTH, dark=options.dark)
            bottom = page.evaluate(f"document.querySelector('{SHOWN}').getBoundingClientRect().bottom")
            page.open(report, width=WIDTH, height=int(bottom) + 24, dark=options.dark, scale=SCALE)
            page.screenshot(options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
