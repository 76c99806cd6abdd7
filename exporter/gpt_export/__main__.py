"""What `gpt-export` and `python -m gpt_export` start: the command line, or what it needs to be one."""

from __future__ import annotations

import sys

from gpt_export.requirements import explain_missing, missing_requirements


def main() -> None:
    """Runs the command line; where a package that it needs is not installed, says so in one sentence and exits 1."""
    try:
        from gpt_export.cli import main as run
    except ModuleNotFoundError as error:
        if sentence := explain_missing(error, missing_requirements()):
            sys.exit(f"Error: {sentence}")
        raise
    run()


if __name__ == "__main__":
    main()
