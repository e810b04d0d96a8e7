"""Links between pages lead somewhere, and the reference of the library has every public name."""

from __future__ import annotations

import ast
import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import FunctionType
from urllib.parse import urlsplit

import pytest
import yaml
from docs_pages import PAGES, PROJECT, blocks

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


def test_links_to_elsewhere_are_well_formed() -> None:
    """Not whether anybody answers, for which tests would need a network: docs/DECISIONS.md."""
    texts = {page: page.read_text(encoding="utf-8") for page in [*PAGES, PROJECT / "CHANGELOG.md"]}
    links = {link for text in texts.values() for link in re.findall(r"\]\((?:<)?(\w+:[^)]*)\)", text)}
    assert len(links) > 2
    for link in links:
        found = urlsplit(link)
        assert found.scheme == "https" and "." in (found.hostname or ""), link
        assert not re.search(r"[\s<>\"\u2026]|[.,;:]$", link) and found.username is None, link
    spellings = Counter(re.sub(r"^https://(www\.)?|/$|\.git$", "", link).lower() for link in links)
    assert [link for link, times in spellings.items() if times > 1] == []


REFERENCE = sorted((PROJECT / "docs/api").glob("*.md"))
PUBLIC = ("", "own_loop", "export", "scaling_law", "mixture_law")  # of velocitune_core, whose `__all__` is for users


def documented() -> list[str]:
    """The names that the reference of the library describes, dotted."""
    return [name for page in REFERENCE for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), flags=re.MULTILINE)]


def imported_by_readers() -> set[str]:
    """The names that the Python blocks of README and docs import from the library."""
    nodes = [node for block in blocks("python") for node in ast.walk(ast.parse(block.text))]
    of_library = [
        node for node in nodes if isinstance(node, ast.ImportFrom) and str(node.module).startswith("velocitune_core")
    ]
    return {alias.name for node in of_library for alias in node.names}


def public_names() -> dict[str, str]:
    """Classes and functions of the public packages: by name, dotted where they are defined."""
    found = {}
    for package in (import_module(f"velocitune_core.{name}".rstrip(".")) for name in PUBLIC):
        for value in (getattr(package, name) for name in package.__all__):
            if isinstance(value, type | FunctionType):
                found[value.__name__] = f"{value.__module__}.{value.__name__}"
    return found


def test_the_reference_has_every_public_name_and_what_the_docs_import() -> None:
    described = documented()
    for dotted in described:  # read and not imported, as some need transformers
        module, _, name = dotted.rpartition(".")
        tree = ast.parse((PROJECT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        (definition,) = (each for each in tree.body if getattr(each, "name", None) == name)
        assert ast.get_docstring(definition), f"{dotted} has no docstring"  # type: ignore[arg-type]
    assert sorted({*public_names().values()} - {*described}) == []
    names = {dotted.rpartition(".")[2] for dotted in described}
    assert len(names) == len(described)
    assert sorted(name for name in imported_by_readers() - names if not name.isupper()) == []


def test_the_index_of_the_reference_has_the_names_of_the_package() -> None:
    (index,) = (page.read_text() for page in REFERENCE if page.name == "index.md")
    shown = dict(re.findall(r"\[`(\w+)`\]\[([\w.]+)\]", index))
    assert set(shown) == set(velocitune_core.__all__) and set(shown.values()) <= set(documented())
    navigation = yaml.safe_load((PROJECT / "mkdocs.yml").read_text())["nav"]
    assert sorted(file for each in navigation for file in each.values()) == [page.name for page in REFERENCE]
