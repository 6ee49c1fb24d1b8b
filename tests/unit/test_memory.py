"""Running out of memory is told with the place; nothing else is mistaken for it."""

from __future__ import annotations

import pytest
import torch

from paramtrans.errors import OutOfMemory
from paramtrans.utils import memory

HUGE = {
    "more than there is": lambda: torch.empty(2**50),
    "more than can be": lambda: torch.empty(2**40, 2**40),
    "of the language": lambda: bytearray(2**60),
    "of a GPU": lambda: _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
}


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("allocate", HUGE.values(), ids=HUGE.keys())
def test_too_much_memory_is_told_with_the_place_and_what_to_do(allocate) -> None:
    with (
        pytest.raises(OutOfMemory, match=r"^training: not enough memory.*training\.batch_size"),
        memory.out_of_memory_hint("training"),
    ):
        allocate()


def test_a_number_that_no_size_can_be_is_no_lack_of_memory() -> None:
    with pytest.raises(TypeError, match="Overflow"), memory.out_of_memory_hint("training"):
        torch.empty(2**70)


def test_other_errors_stay_what_they_are() -> None:
    for error in (
        RuntimeError("shape mismatch"),
        ValueError("x"),
        OverflowError("x"),
        RuntimeError("numeric overflow"),
        RuntimeError("value cannot be converted to type int without overflow"),
    ):
        with pytest.raises(type(error)) as caught, memory.out_of_memory_hint("training"):
            raise error
        assert caught.value is error


def test_what_a_thread_freed_is_given_back_unless_all_threads_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, tuple[int, ...]]] = []

    def function(name: str):
        return lambda *args: calls.append((name, args)) or 1

    monkeypatch.setattr(memory, "_of_c_library", function)
    monkeypatch.setattr(memory, "_in_one_pool", False)
    memory.give_back(of_thread=True)
    memory.in_one_pool()
    memory.give_back(of_thread=True)
    assert calls == [("malloc_trim", (0,)), ("mallopt", (memory.ARENAS, 1))]
    memory.give_back()
    assert calls[2:] == [("malloc_trim", (0,))]
    monkeypatch.setattr(memory, "_of_c_library", lambda name: None)  # another system
    memory.in_one_pool()
    memory.give_back()
