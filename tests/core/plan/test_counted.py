"""Bytes and operations that are counted while something runs, against what is known of it."""

from __future__ import annotations

import mmap
import sys

import pytest
import torch
import torch.nn.functional as F

from velocitune_core.plan.counted import PeakBytes, flops, tensor_peak

CPU = torch.device("cpu")


def test_tensors_that_are_alive_at_once_are_added() -> None:
    def act() -> None:
        first = torch.ones(1000)
        del first
        both = torch.ones(2000), torch.ones(3000)
        del both

    assert tensor_peak(act, CPU) == 20_000


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_peak_of_the_process_starts_anew() -> None:
    memory = PeakBytes(CPU)
    with mmap.mmap(-1, 32_000_000) as pages:  # given back at once when it is closed, unlike what a heap keeps
        pages.write(bytes(32_000_000))
    assert memory.peak - memory.now > 25_000_000
    memory.restart()
    assert memory.peak - memory.now < 5_000_000


def test_attention_and_products_are_counted_on_a_cpu_forward_and_backward() -> None:
    query, key, value = (torch.ones(1, 2, 8, 4, requires_grad=True) for _ in range(3))  # two heads of size 4
    scores = 2 * 2 * 8 * 8 * 4  # of both heads; with the weighted sum, twice that
    assert flops(lambda: F.scaled_dot_product_attention(query, key, value)) == 2 * scores
    both = flops(lambda: F.scaled_dot_product_attention(query, key, value).sum().backward())
    assert both == 7 * scores  # backward, the scores again and four products
    assert flops(lambda: torch.ones(3, 4) @ torch.ones(4, 5)) == 2 * 3 * 4 * 5
