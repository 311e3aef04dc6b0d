"""What stands beside our libraries in benchmarks/cpu.py: torch, ONNX Runtime and OpenVINO at their best settings."""

import shutil
from pathlib import Path
from typing import Any

from cpu_sides import SIDES, Candidate, Side, Subject, register


@register("torch")
class _Torch(Side):
    title = "torch float32, eager"

    def prepare(self, subject: Subject, folder: Path) -> str:
        return ""

    def load(self, subject: Subject, folder: Path, threads: int) -> list[Candidate]:
        import torch

        torch.set_num_threads(threads)

        def candidate(name: str, layout: torch.memory_format) -> Candidate:
            model, images = subject.model().to(memory_format=layout), subject.images().to(memory_format=layout)
            return Candidate(name, torch.inference_mode()(lambda: model(images)))

        return [candidate("NCHW", torch.contiguous_format), candidate("NHWC", torch.channels_last)]


class _OnnxRuntime(Side):
    """All graph optimisations; waiting threads that spin and that sleep are both tried."""

    packages = ("onnx", "onnxscript", "onnxruntime")
    file: str

    def load(self, subject: Subject, folder: Path, threads: int) -> list[Candidate]:
        from cpu_onnx import IMAGE

        feed = {IMAGE: subject.images().numpy()}

        def candidate(name: str, spinning: bool) -> Candidate:
            session = _session(folder / self.file, threads, spinning)
            return Candidate(name, lambda: session.run(None, feed))

        if threads == 1:  # nobody waits
            return [candidate("", False)]
        return [candidate("spinning", True), candidate("not spinning", False)]


def _session(model: Path, threads: int, spinning: bool, optimised: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


@register("ort-float")
class _OnnxRuntimeFloat(_OnnxRuntime):
    title, file = "ONNX Runtime float32", "float.onnx"

    def prepare(self, subject: Subject, folder: Path) -> str:
        from cpu_onnx import write_float

        if not (folder / self.file).exists():
            write_float(subject.model(), subject.images(), folder / self.file)
        return ""


@register("ort-int8")
class _OnnxRuntimeInt8(_OnnxRuntime):
    title, file = "ONNX Runtime int8", "int8.onnx"

    def prepare(self, subject: Subject, folder: Path) -> str:
        from cpu_onnx import count_ops

        _write_int8(subject, folder)
        optimised = folder / "int8.optimised.onnx"
        _session(folder / self.file, 1, False, optimised)
        ops = count_ops(optimised)
        integer = ops["QLinearConv"] + ops["QGemm"] + ops["MatMulIntegerToFloat"]
        return _share(
            integer, integer + sum(ops[name] for name in ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"))
        )


@register("openvino-int8")
class _OpenVinoInt8(Side):
    """OpenVINO on the quantized ONNX model; what it leaves in float runs in its default or in float32."""

    title, packages = "OpenVINO int8", ("onnx", "onnxscript", "onnxruntime", "openvino")

    def prepare(self, subject: Subject, folder: Path) -> str:
        import openvino  # noqa: F401  # so that a missing one is told before the timing

        _write_int8(subject, folder)
        return ""

    def load(self, subject: Subject, folder: Path, threads: int) -> list[Candidate]:
        import openvino
        from cpu_onnx import IMAGE

        core, images = openvino.Core(), subject.images().numpy()
        base = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}

        def candidate(name: str, options: dict[str, str]) -> Candidate:
            compiled = core.compile_model(str(folder / _OnnxRuntimeInt8.file), "CPU", base | options)
            request = compiled.create_infer_request()
            request.set_tensor(IMAGE, openvino.Tensor(images))  # a copy: shared images would be gone when it runs
            return Candidate(f"{name}{_share(*_integer_layers(compiled))}", request.infer)

        return [candidate("", {}), candidate("rest float32, ", {"INFERENCE_PRECISION_HINT": "f32"})]


def _integer_layers(compiled: Any) -> tuple[int, int]:
    """Return how many convolutions and linear layers OpenVINO runs in int8, and how many it has."""
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    layers = [fact for fact in facts if fact["layerType"].astype(str) in ("Convolution", "FullyConnected", "MatMul")]
    return sum(fact["primitiveType"].astype(str).endswith("I8") for fact in layers), len(layers)


def _share(integer: int, layers: int) -> str:
    return f"{integer} of {layers} conv and linear layers in int8"


def _write_int8(subject: Subject, folder: Path) -> None:
    from cpu_onnx import write_quantized

    SIDES["ort-float"].prepare(subject, folder)
    target, temporary = folder / _OnnxRuntimeInt8.file, folder / "int8.partial.onnx"
    if not target.exists():
        write_quantized(folder / _OnnxRuntimeFloat.file, subject.images(), temporary)
        shutil.move(temporary, target)
