"""Questions that occur in training documents are found and left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.config import Downstream
from velocitune_core.evaluation.benchmark_tasks import DownstreamError, Instance, read_families
from velocitune_core.evaluation.contamination import overlap, without_overlap
from velocitune_core.recipes.embedded import EMBEDDED

ARCHIVES = Path(__file__).parents[3] / "archives"
LEAKED = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"


def test_an_overlap_is_found_in_any_layout() -> None:
    items = {
        "robe": LEAKED,
        "other": "Wendi feeds each of her chickens three cups of mixed chicken feed a day, with seeds.",
    }
    document = "before\n# " + LEAKED.upper().replace(" ", "\n#   ") + "\nafter"
    assert overlap(items, ["unrelated", document]) == {
        "robe": "a robe takes 2 bolts of blue fiber and half that much white"
    }
    assert overlap(items, ["unrelated", "a robe of blue fiber"]) == {}
    assert overlap({}, [document]) == overlap(items, []) == {}


def test_n_consecutive_words_are_an_overlap_and_n_minus_one_are_not() -> None:
    words = LEAKED.split()
    for start in range(len(words) - 13):
        assert overlap({"robe": LEAKED}, ["x " + " ".join(words[start : start + 13]) + " x"])
        assert not overlap({"robe": LEAKED}, ["x " + " ".join(words[start : start + 12]) + " x"])
        assert overlap({"robe": LEAKED}, [" ".join(words[start : start + 12])], n=12)
    with pytest.raises(DownstreamError, match="n: 0"):
        overlap({"robe": LEAKED}, [], n=0)


@given(
    items=st.lists(st.text("ab ", max_size=12), max_size=4),
    documents=st.lists(st.text("ab ", max_size=40), max_size=4),
    n=st.integers(1, 6),
)
def test_the_search_misses_nothing(items: list[str], documents: list[str], n: int) -> None:
    def grams(text: str, length: int) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}

    expected = set()
    for number, item in enumerate(items):
        length = min(n, len(item.split()))
        if length and any(grams(item, length) & grams(document, length) for document in documents):
            expected.add(str(number))
    assert set(overlap({str(number): item for number, item in enumerate(items)}, documents, n)) == expected


def test_an_item_of_fewer_than_n_words_is_searched_as_a_whole() -> None:
    assert overlap({"a": "def add(x, y): return x + y", "b": "?!"}, ["def add(x, y):\n    return x + y\n"]) == {
        "a": "def add x y return x y"
    }


def test_overlapping_questions_are_left_out() -> None:
    questions = [Instance("sums#0", "", " 3.", LEAKED), Instance("sums#1", "", " two", "one two")]
    clean, shared = without_overlap({"mathematics": {"sums": questions}}, [LEAKED])
    assert [each.identifier for each in clean["mathematics"]["sums"]] == ["sums#1"]
    assert list(shared) == ["sums#0"]
    with pytest.raises(DownstreamError, match="every question of sums shares 13 consecutive words"):
        without_overlap({"mathematics": {"sums": questions}}, [LEAKED, "one two"])


def embedded_documents() -> Iterator[str]:
    for corpus in EMBEDDED.values():
        (archive,) = ARCHIVES.glob(f"{corpus.archive}*")
        for _, text in corpus.read(archive):
            yield text


def test_the_embedded_domains_hold_none_of_the_default_questions() -> None:
    """Measured: 9 of 2,983 share 13 words with a document, all with sympy's code, none of them a question's wording:
    loops over two indices, zeros, numbers counted up, the first primes. They are left out of every evaluation."""
    if not all(list(ARCHIVES.glob(f"{corpus.archive}*")) for corpus in EMBEDDED.values()):
        pytest.skip(f"needs the archives in {ARCHIVES}; `python -m flows.corpus` fetches them")
    families = read_families(ARCHIVES, dict(Downstream().tasks))
    counts = {task: len(found) for tasks in families.values() for task, found in tasks.items()}
    assert counts == {
        "gsm8k/gold_bpb_5shot": 1319,
        "minerva_math_500/gold_bpb_0shot": 500,
        "codex_humaneval/gold_bpb_3shot": 164,
        "codex_mbpp/gold_bpb_3shot": 500,
        "mt_mbpp_bash/gold_bpb_3shot": 500,
    }
    items = {each.identifier: each.source for tasks in families.values() for found in tasks.values() for each in found}
    stories = read_families(ARCHIVES, {"reading": ["coqa/bpb_0shot"]})["reading"]["coqa/bpb_0shot"][:50]
    trained_on = {each.identifier: each.source for each in stories}  # the domain `general` holds the stories of coqa
    shared = set(overlap(items | trained_on, embedded_documents()))
    assert trained_on.keys() <= shared
    leaked = [identifier.partition("#")[0] for identifier in shared - trained_on.keys()]
    assert len(leaked) <= 0.005 * len(items)
    assert all(leaked.count(task) <= 0.04 * count for task, count in counts.items())
