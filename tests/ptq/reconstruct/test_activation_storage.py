"""Activations stay within the memory that is allowed; the rest lies in files that leave nothing behind."""

import pytest
import torch

from hawq.ptq.reconstruct.storage import Storage

GIB = 1 << 30


def test_tensors_beyond_the_bound_lie_in_files(tmp_path):
    storage = Storage(1000 / GIB, tmp_path / "run")
    first, second, third = storage.lend((100,)), storage.lend((10, 20)), storage.lend((75, 2))
    assert storage.held == 4 * 250  # the second one has 800 bytes where 600 are left
    assert [first.is_shared(), second.is_shared(), third.is_shared()] == [False, True, False]
    second.copy_(torch.arange(200).view(10, 20))
    assert second[3, 4] == 64
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]


def test_what_is_taken_back_is_free_again():
    storage = Storage(1000 / GIB)
    first = storage.lend((200,))
    storage.take_back(first)
    assert storage.held == 0
    assert not storage.lend((250,)).is_shared()


@pytest.mark.parametrize("memory", [0, 1])
def test_wherever_a_tensor_lies_it_is_float32_of_its_shape(memory, tmp_path):
    tensor = Storage(memory, tmp_path).lend((3, 4, 5))
    assert (tensor.dtype, tensor.shape, tensor.is_contiguous()) == (torch.float32, (3, 4, 5), True)
