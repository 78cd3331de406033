"""The quick ways on CPUs give what the plain ways give."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from refseg_core.models import acceleration as cpu
from refseg_core.models.acceleration import map_on_threads, products
from refseg_core.models.processor import this_processor
from tests.support.closeness import assert_close
from tests.support.models import random_tensor


@pytest.fixture(autouse=True)
def _as_many_threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[True, False], ids=["oneDNN", "BLAS"])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param and not this_processor().has_onednn_products:
        pytest.skip("this processor leaves large products to its BLAS")
    chosen = replace(this_processor(), has_onednn_products=request.param)
    monkeypatch.setattr(cpu, "this_processor", lambda: chosen)
    monkeypatch.setattr(cpu, "_ONEDNN_PAYS", 0)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(("n", "m", "k", "c"), [(1, 64, 65, 300), (3, 5, 7, 11), (2, 1, 1, 1), (0, 4, 3, 2)])
def test_products_are_products(n: int, m: int, k: int, c: int) -> None:
    left, right = random_tensor(n, m, k) - 0.5, random_tensor(n, k, c, seed=1) - 0.5
    expected = left.double() @ right.double()
    for plus in (None, random_tensor(n, m, c, seed=2), random_tensor(m, c, seed=2)):
        added = expected if plus is None else expected + plus
        assert_close(products(left, right, plus).double(), added, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("_library")
def test_products_take_views_and_leave_them_as_they_are() -> None:
    left, right = random_tensor(2, 9, 20)[:, ::2, 3:], random_tensor(2, 40, 17).transpose(1, 2)
    plus = random_tensor(5, 1).expand(5, 40)
    before = [tensor.clone() for tensor in (left, right, plus)]
    assert_close(products(left, right, plus), before[0] @ before[1] + before[2])
    assert all(torch.equal(old, new) for old, new in zip(before, (left, right, plus), strict=True))


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_chunks_are_mapped_in_order_each_on_one_thread(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    mapped = map_on_threads(lambda chunk: (int(chunk.sum()), torch.get_num_threads()), torch.eye(7).split(1))
    assert mapped == [(1, 1)] * 7
    assert torch.get_num_threads() == _threads_of_a_new_thread() == num_threads


def test_chunks_are_mapped_side_by_side() -> None:
    torch.set_num_threads(3)
    together = threading.Barrier(3, timeout=60)
    assert len(set(map_on_threads(lambda _: together.wait(), torch.eye(3).split(1)))) == 3


def test_a_single_chunk_has_all_threads() -> None:
    torch.set_num_threads(3)
    assert map_on_threads(lambda _: torch.get_num_threads(), [torch.eye(3)]) == [3]


def _threads_of_a_new_thread() -> int:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return seen[0]


def test_inference_mode_and_gradients_reach_the_threads() -> None:
    torch.set_num_threads(2)
    weight = torch.ones(3, requires_grad=True)

    def modes(chunk: Tensor) -> tuple[bool, bool]:
        return torch.is_inference_mode_enabled(), (weight * chunk).requires_grad

    with torch.inference_mode():
        assert map_on_threads(modes, torch.eye(3).split(1)) == [(True, False)] * 3
    with torch.no_grad():
        assert map_on_threads(modes, torch.eye(3).split(1)) == [(False, False)] * 3


def test_an_error_in_a_thread_is_raised() -> None:
    torch.set_num_threads(2)

    def fail(chunk: Tensor) -> None:
        raise ArithmeticError(int(chunk.argmax()))

    with pytest.raises(ArithmeticError, match="0"):
        map_on_threads(fail, torch.eye(3).split(1))
