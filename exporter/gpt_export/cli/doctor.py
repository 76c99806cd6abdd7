"""`gpt-export doctor`."""

from __future__ import annotations

import click

from gpt_export.cli.errors import run_options
from gpt_export.cli.options import echo_result


@click.command()
@run_options
def doctor() -> None:
    """Look at this machine: versions, what decides speed, what is missing for which command.

    Exits 1 when something is missing that gpt-export requires. The block at the end is for bug reports; it names
    neither this machine nor its folders.
    """
    from gpt_export.cli.diagnosis import commands, diagnose, features

    found = diagnose()
    lines = [f"gpt-export {found['versions']['gpt-export']}", ""]
    for finding in commands():
        mark = "ready  " if finding.there else "missing"
        lines.append(f"{mark}  {finding.what}" + ("" if finding.there else f"\n         {finding.says}"))
    lines.append("")
    for name, there, decides in features():
        mark = {True: "yes    ", False: "no     ", None: "unknown"}[there]
        lines.append(f"{mark}  {name}: {decides}")
    machine = found["machine"]
    block = [f"{name} {version or 'not installed'}" for name, version in found["versions"].items()]
    said = ", ".join(name for name, there in found["features"].items() if there) or "none known"
    block += [machine["system"], f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB", said]
    lines += ["", "For a bug report:", "", "```", *block, "```"]
    echo_result(found, "\n".join(lines))
    if any(finding.needed and not finding.there for finding in commands()):
        click.get_current_context().exit(1)
