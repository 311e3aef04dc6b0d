"""Checkpoints are read whole and without running code, or refused."""

import pickle

import pytest
import torch

from hawq.checkpoint import is_checkpoint, read_checkpoint, write_checkpoint
from hawq.errors import HawqError, UsageError


class Harmful:
    def __reduce__(self):
        return open, ("harm.txt", "w")


def test_what_is_written_is_read(tmp_path):
    write_checkpoint(tmp_path / "c.pt", {"model": {"w": torch.arange(3)}, "epoch": 2, "units": {"a": [4, 8]}})
    body = read_checkpoint(tmp_path / "c.pt")
    assert (body["epoch"], body["units"], body["model"]["w"].tolist()) == (2, {"a": [4, 8]}, [0, 1, 2])


def test_missing_torn_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "c.pt"
    with pytest.raises(UsageError, match="hawq train"):
        read_checkpoint(path)
    write_checkpoint(path, {"model": {"w": torch.zeros(1000)}})
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(HawqError, match="cannot be read as a checkpoint"):
            read_checkpoint(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(HawqError, match="no checkpoint of hawq"):
        read_checkpoint(path)


def test_a_checkpoint_is_told_from_other_files(tmp_path):
    path = tmp_path / "c.pt"
    assert not is_checkpoint(path)
    write_checkpoint(path, {"model": {"w": torch.zeros(1000)}})
    assert is_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-100])
    assert not is_checkpoint(path)
    for foreign in ({"state_dict": {}, "epoch": 1}, {"w": torch.zeros(1)}, [1], Harmful()):
        for is_zip in (True, False):
            torch.save(foreign, path, _use_new_zipfile_serialization=is_zip)
            assert not is_checkpoint(path)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(HawqError, match="cannot be read"):
        read_checkpoint(tmp_path / "c.pt")
    torch.save(Harmful(), tmp_path / "d.pt")
    with pytest.raises(HawqError, match="cannot be read"):
        read_checkpoint(tmp_path / "d.pt")
    assert not (tmp_path / "harm.txt").exists()
