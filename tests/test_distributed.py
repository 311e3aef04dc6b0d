from hawq.distributed import World, world


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
