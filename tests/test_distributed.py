import pytest
import torch
from threads import on_each

from hawq.distributed import World, world
from hawq.errors import HawqError


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = world()
    assert alone == World(0, 1)
    assert alone.leads
    assert alone.join({2: "b", 0: "a"}) == {0: "a", 2: "b"}
    assert list(alone.join({2: "b", 0: "a"})) == [0, 2]
    with alone.leader_first():
        pass


def test_every_piece_of_work_has_one_owner():
    ranks = [World(rank, 3) for rank in range(3)]
    assert all(sum(rank.owns(index) for rank in ranks) == 1 for index in range(10))
    assert [rank.leads for rank in ranks] == [True, False, False]


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert World(6, 8).device("cuda") == "cuda:2"
    assert World(6, 8).device("cpu") == "cpu"
    assert World().device("cuda") == "cuda"


def test_results_come_in_the_order_of_the_pieces_whoever_computes_them():
    def work(world):
        return world.share(index * 10 for index in range(7) if world.owns(index))

    for size in (1, 2, 3, 8):
        assert on_each(size, work) == [[0, 10, 20, 30, 40, 50, 60]] * size


def test_an_error_is_raised_by_all_and_the_rest_is_not_begun():
    begun = []

    def work(world):
        def own():
            for index in filter(world.owns, range(6)):
                begun.append(index)
                if index in (1, 2):
                    raise HawqError(f"piece {index}")
                yield index

        with pytest.raises(HawqError, match="piece 1"):
            world.share(own())

    on_each(2, work)
    assert sorted(begun) == [0, 1, 2]


def test_one_process_gathers_its_own_rows():
    rows = torch.arange(6).view(3, 2)
    assert torch.equal(torch.stack(World().gather(rows, 2)), rows[:2])


def test_a_process_that_ended_is_told_from_a_fault_of_this_one(monkeypatch):
    def lost(*given):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "all_gather_object", lost)
    monkeypatch.setattr(torch.distributed, "all_gather", lost)
    with pytest.raises(HawqError, match=r"another process ended .*\(Connection closed by peer\).* --resume"):
        World(0, 2).collect(1)
    with pytest.raises(HawqError, match="another process ended"):
        World(0, 2).gather(torch.zeros(1, 3), 2)
