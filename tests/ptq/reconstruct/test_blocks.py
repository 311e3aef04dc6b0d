"""Blocks are found in the graph: residual blocks, inception modules, inverted residuals, else single nodes."""

import pytest
import torch
import torch.nn.functional as F
from networks import NETWORKS, SIZE, build
from torch import nn

from hawq.graph.trace import trace
from hawq.ptq.reconstruct.blocks import blocks, nodes_alone

EXPECTED = {
    "Residual": ["input", "stem", "max_pool2d conv1 conv2 down add", "conv3 add_2",
                 "adaptive_avg_pool2d head.flatten head"],
    "Branches": ["input", "stem", "left right1 right2 avg_pool2d pooled max_pool2d cat", "last", "mean flatten"],
    "Inverted": ["input", "stem deep project", "expand", "grouped", "adaptive_avg_pool2d head", "flatten"],
    "Dense": ["input", "stem", "norm1 conv1 cat", "norm2 conv2 cat_2", "norm3 conv3",
              "avg_pool2d norm4 avg_pool2d_2 head.flatten head"],
}  # fmt: skip


class Plain(nn.Module):
    """An expansion, a depthwise convolution and a projection without a skip, then two pairs of MobileNetV1."""

    def __init__(self):
        super().__init__()
        self.expand, self.deep, self.project = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1)
        self.deep2, self.point2 = nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 5, 1)
        self.deep3, self.point3 = nn.Conv2d(5, 5, 3, groups=5), nn.Conv2d(5, 6, 1)

    def forward(self, x):
        for layer in self.children():
            x = F.relu(layer(x))
        return x.mean((2, 3))


class Wide(nn.Module):
    """Eleven units between two cuts."""

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(3, 2, 1) for _ in range(11))

    def forward(self, x):
        return torch.cat([F.relu(branch(x)) for branch in self.branches], 1).mean((2, 3))


def names(found):
    return [" ".join(node.name for node in block.nodes) for block in found]


@pytest.mark.parametrize("name", EXPECTED)
def test_blocks_of_the_small_networks(name):
    assert names(blocks(trace(build(name), (3, SIZE, SIZE)))) == EXPECTED[name]


def test_depthwise_convolutions_go_with_their_neighbours():
    graph = trace(Plain(), (3, SIZE, SIZE))
    assert names(blocks(graph)) == ["input", "expand deep project", "deep2 point2", "deep3 point3", "mean flatten"]


def test_many_units_without_a_cut_are_left_apart():
    graph = trace(Wide(), (3, SIZE, SIZE))
    assert names(blocks(graph))[:12] == list(graph.nodes)[:12]


@pytest.mark.parametrize("part", [blocks, nodes_alone])
@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_pass_on_what_others_read(name, part):
    graph = trace(build(name), (3, SIZE, SIZE))
    found = part(graph)
    assert [node.name for block in found for node in block.nodes] == list(graph.nodes)
    known = set()
    for block in found:
        assert known.issuperset(block.inputs)
        inside = {node.name for node in block.nodes}
        read = {n for node in block.nodes for n in node.inputs}
        assert read == (inside & read) | set(block.inputs)
        known.update(block.results)
    assert graph.output in known


def test_a_block_with_two_results_names_both():
    graph = trace(build("Residual"), (3, SIZE, SIZE))
    alone = {block.output: block for block in nodes_alone(graph)}
    assert alone["add"].inputs == ("conv2", "down")
    residual = next(block for block in blocks(graph) if block.output == "add")
    assert (residual.inputs, residual.results) == (("stem",), ("add",))
    assert residual.units == ("conv1", "conv2", "down")
