"""Links between pages lead somewhere, and the reference of the library has every public name."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from docs_pages import PAGES, PROJECT

import velocitune_core


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*?) *$", text, flags=re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(next(name for name in (slug, *(f"{slug}-{again}" for again in range(1, 99))) if name not in found))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_pages_lead_to_a_heading(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", text):
        there = (page.parent / target) if target else page
        if there.suffix == ".md":
            assert anchor in anchors(there), f"{target}#{anchor}"


REFERENCE = sorted((PROJECT / "docs/api").glob("*.md"))


def documented() -> list[str]:
    """The names that the reference of the library describes, dotted."""
    return [name for page in REFERENCE for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), flags=re.MULTILINE)]


def test_the_reference_has_every_public_name_and_no_other() -> None:
    found = {}
    for dotted in documented():
        module, _, name = dotted.rpartition(".")
        described = getattr(import_module(module), name)
        assert described.__doc__, f"{dotted} has no docstring"
        found[name] = described
    assert [name for name in velocitune_core.__all__ if found.get(name) is not getattr(velocitune_core, name)] == []
    (index,) = (page.read_text() for page in REFERENCE if page.name == "index.md")
    shown = dict(re.findall(r"\[`(\w+)`\]\[([\w.]+)\]", index))
    assert set(shown) == set(velocitune_core.__all__) and set(shown.values()) <= set(documented())
    navigation = yaml.safe_load((PROJECT / "mkdocs.yml").read_text())["nav"]
    assert sorted(file for each in navigation for file in each.values()) == [page.name for page in REFERENCE]
