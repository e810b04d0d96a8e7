"""Artifacts in Prefect's UI: tables of the stages, and the answer on the run that one started."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from velocitune_core.report.headline import Answer
from velocitune_core.style.text import counted

logger = logging.getLogger(__name__)
GROUP = "velocitune"  # how every key begins, so that the artifacts of this project stand together
SLICES = 12  # of a pie; more cannot be distinguished


def publish_table(key: str, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Create a table artifact. If Prefect's server does not take it, log a warning: it is only a view."""
    try:
        create_table_artifact([dict(row) for row in rows], key=f"{GROUP}-{key}", description=title)
    except Exception as error:
        logger.warning("Prefect did not take the table %s: %s", key, error)


def publish_markdown(key: str, title: str, text: str) -> None:
    """Create a markdown artifact of the flow that calls this. Prefect's refusal is a warning, as of a table."""
    try:
        create_markdown_artifact(text, key=f"{GROUP}-{key}", description=title)
    except Exception as error:
        logger.warning("Prefect did not take %s: %s", key, error)


def answer_markdown(found: Answer, rows: Sequence[Mapping[str, str]], links: Mapping[str, str]) -> str:
    """Return the page of a pipeline: its answer, the table, the mixture as a figure and to copy, and links."""
    parts = [found.sentence, markdown_table(rows), mixture_figure(found.mixture)]
    parts += [f"The mixture, to copy into params.yaml:\n\n```yaml\n{found.mixture_yaml}```", markdown_links(links)]
    return "\n\n".join(parts)


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows of text as a table of markdown."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[column] for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def mixture_figure(mixture: Mapping[str, float]) -> str:
    """Return a mixture as a pie of mermaid, in percent; of many domains, the smallest together."""
    ordered = sorted(mixture, key=lambda name: (-mixture[name], name))
    slices = {name: mixture[name] for name in ordered[:SLICES]}
    if rest := ordered[SLICES:]:
        slices[counted(len(rest), "other")] = sum(mixture[name] for name in rest)
    lines = [f'    "{name}" : {100 * share:.1f}' for name, share in slices.items() if share >= 5e-4]
    title = "    title Mean mixture of the training, percent"
    return "\n".join(["```mermaid", "pie showData", title, *lines, "```"])


def markdown_links(links: Mapping[str, str]) -> str:
    """Return a list of links; the address of a file on this machine is made from its path."""
    return "\n".join(
        f"- [{name}]({place if '://' in place else Path(place).absolute().as_uri()}): `{place}`"
        for name, place in links.items()
    )
