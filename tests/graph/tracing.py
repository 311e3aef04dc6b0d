"""Trace a model and hold its canonical graph against it."""

import torch
from torch import Tensor, nn

from hawq.graph.interpret import run_float
from hawq.graph.ir import FloatGraph
from hawq.graph.trace import trace


class Run(nn.Module):
    """A model made of modules and the function that calls them: `Run(lambda m, x: m.conv(x), conv=nn.Conv2d(...))`."""

    def __init__(self, call, **modules: nn.Module) -> None:
        super().__init__()
        self.call = call
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


def shake(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give the batch norms statistics and weights under which any mistake in fusing them shows; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
                module.bias.data.normal_(0, 0.2, generator=generator)
    return model.eval()


def assert_same(
    model: nn.Module, shape: tuple[int, int, int], batch: int = 1, statistics: int | None = 0
) -> FloatGraph:
    """Trace; the graph's output equals the model's, and its shapes are what it computes.

    Both run the same kernels in the same order, apart from spatial means (summed in another order) and explicit
    padding (another kernel): 1e-5 of the largest logit is some fifty float32 roundings. Batch norms are shaken with
    the seed `statistics` first; None leaves them as they are.
    """
    if statistics is not None:
        shake(model, statistics)
    graph = trace(model, shape)
    image = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model(image), run_float(graph, image)
    for node in graph.nodes.values():
        assert tuple(found[node.name].shape) == (batch, *node.shape)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found[graph.output], expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    return graph


def kinds(graph: FloatGraph) -> list[str]:
    """Return the kinds of the nodes behind the input, in order."""
    return [type(node.op).__name__ for node in list(graph.nodes.values())[1:]]
