"""Data sets by name, by what lies at a path, and of one's own."""

import pytest

from hawq.data import load_data, names, registry
from hawq.errors import UsageError


def test_the_names_are_those_of_the_readers():
    assert names() == [
        "cifar10",
        "cifar100",
        "digits",
        "imagefolder",
        "npz",
        "voc",
        "voc-detection",
        "voc-segmentation",
    ]


def test_an_unknown_name_lists_the_names():
    with pytest.raises(UsageError) as caught:
        load_data("mnist")
    assert all(name in str(caught.value) for name in [*names(), "mnist", ".npz"])


def test_a_file_of_no_known_kind_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(UsageError, match="neither train/ and val/"):
        load_data(str(path))


def test_a_registered_reader_hears_what_was_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_READERS", dict(registry._READERS))
    heard = []

    @registry.register_data("made")
    def made(path, spec, overrides):
        heard.append((path, spec, overrides))
        return load_data("digits")

    assert "made" in names()
    assert load_data("made", tmp_path, spec=None, size=None, mean=(0.1, 0.2, 0.3)).name == "digits"
    assert heard == [(tmp_path, None, {"size": None, "mean": (0.1, 0.2, 0.3)})]
