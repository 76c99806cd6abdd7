"""`gpt-export serve`."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

import click

from gpt_export.cli.completion import complete_variant
from gpt_export.cli.errors import INTERRUPTED, run_options
from gpt_export.cli.options import echo_result


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), help="[default: 8000, or a free one if it is taken; so does 0]")
@click.option(
    "--variant",
    shell_complete=complete_variant,
    help="The graph that the page opens first.  [default: the first of fp32, fp16, int8, int4]",
)
@click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")
@click.option(
    "--node-modules",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where onnxruntime-web and @huggingface/tokenizers are installed.  [default: node_modules here or above]",
)
@run_options
def serve(artifact: Path, port: int | None, variant: str | None, no_browser: bool, node_modules: Path | None) -> None:
    """Run ARTIFACT in the browser: a page on this machine that continues prompts.

    Reachable from this machine alone, and read-only: the page, the files that the artifact's manifest names, and
    onnxruntime-web. It needs no network. Ctrl-C ends it.
    """
    from gpt_export.artifact.manifest import read_manifest
    from gpt_export.serving.open import open_server

    with open_server(artifact, port=port, variant=variant, node_modules=node_modules) as (server, url):
        try:  # how it ends, and no failure: nothing is said
            manifest = read_manifest(artifact)
            told = f"{manifest.name} in {', '.join(manifest.variants)}, on this machine alone; Ctrl-C ends it."
            click.secho(told, dim=True, err=True)
            echo_result({"artifact": str(artifact), "url": url}, url)
            if not no_browser and _has_screen():
                webbrowser.open(url)
            server.serve_forever()
        except KeyboardInterrupt:
            click.get_current_context().exit(INTERRUPTED)


def _has_screen() -> bool:
    """Whether a browser would open a window, and not take over this terminal."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
