"""Confusion, precision, recall and F1 against counting by hand."""

import csv
import json

import pytest
import torch

from hawq.cli.train_report import save_report
from hawq.evaluation import Accuracy
from hawq.train.report import Report


def _accuracy(shown, predicted):
    hits = 100 * sum(a == b for a, b in zip(shown, predicted, strict=True)) / len(shown)
    return Accuracy(hits, 100.0, len(shown), torch.tensor(predicted), torch.tensor(shown))


FOUR = _accuracy([0, 0, 0, 2, 2, 5], [0, 2, 2, 2, 2, 0])


def test_the_figures_are_means_over_the_classes():
    """Class 0: precision 1/2, recall 1/3; class 2: 2/4, 2/2; class 5 is never predicted: 0, 0."""
    figures = Report(FOUR).to_json()
    precision, recall = [1 / 2, 1 / 2, 0], [1 / 3, 1, 0]
    f1 = [2 * p * r / (p + r) if p + r else 0 for p, r in zip(precision, recall, strict=True)]
    expected = {"precision": sum(precision) / 3, "recall": sum(recall) / 3, "f1": sum(f1) / 3}
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert (figures["top1"], figures["images"]) == (50.0, 6)


def test_the_confusion_counts_shown_by_predicted():
    report = Report(FOUR)
    assert report.classes == [0, 2, 5]
    assert report.confusion.tolist() == [[1, 2, 0], [0, 2, 0], [1, 0, 0]]
    assert report.most_confused(5) == [(0, 2, 2), (5, 0, 1)]
    assert report.most_confused(1) == [(0, 2, 2)]


def test_the_files_hold_the_figures_and_the_confusion(tmp_path, capsys):
    figures = save_report(FOUR, tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    assert {name: document[name] for name in figures} == figures
    assert document["format"] == "hawq-report"
    rows = list(csv.reader((tmp_path / "confusion.csv").read_text().splitlines()))
    assert rows == [["shown", "0", "2", "5"], ["0", "1", "2", "0"], ["2", "0", "2", "0"], ["5", "1", "0", "0"]]


def test_many_classes_print_the_pairs_only(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr("hawq.cli.train_report.print_table", lambda title, header, rows: titles.append((title, rows)))
    shown = [*range(30), 7]
    save_report(_accuracy(shown, [*range(30), 9]), tmp_path)
    assert titles[1] == ("most confused classes", [(7, 9, 1)])
    titles.clear()
    save_report(FOUR, tmp_path)
    assert titles[1][1] == [[0, 1, 2, 0], [2, 0, 2, 0], [5, 1, 0, 0]]
