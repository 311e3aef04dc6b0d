"""Put small networks on the workbench of post-training quantization."""

from networks import SIZE, build, images
from schemes import SCHEMES

from hawq.graph.ir import FloatGraph
from hawq.graph.trace import trace
from hawq.ptq import Workbench


def bench(name: str = "Residual", scheme: str = "uniform4", **others: object) -> tuple[Workbench, FloatGraph]:
    """Return a workbench with 16 images, and the graph as it was traced."""
    graph = trace(build(name), (3, SIZE, SIZE))
    data = {"images": lambda: [images(8, seed) for seed in (1, 2)]} | others
    return Workbench.of(graph, SCHEMES[scheme](graph), **data), graph
