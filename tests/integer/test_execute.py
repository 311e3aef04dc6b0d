"""The reference executor equals a slow integer oracle on every op."""

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import run
from programs import binary_network, logits_of
from strategies import CASES

from hawq.errors import HawqError
from hawq.integer import IntegerProgram, ReferenceExecutor, TensorType, certify, execute_op
from hawq.integer import ops as o


def test_every_op_has_a_case():
    assert {cls.__name__ for cls in CASES} == set(o.OPS)


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_op_equals_the_oracle(kind, data):
    op, inputs, types, constants = data.draw(CASES[kind])
    found = execute_op(op, inputs, types, constants)
    expected = run(op, [x.numpy() for x in inputs], types, constants)
    assert found.dtype == torch.int32
    assert found.tolist() == expected.tolist()


def _wide_program(weight_code, features):
    source = TensorType((features,), 16, False)
    ops = (
        o.QuantizeInput(name="x", inputs=(), out=TensorType((features, 1, 1), 16, False), lo=0, hi=65535),
        o.Flatten(name="f", inputs=("x",), out=source),
        o.Linear(name="y", inputs=("f",), out=TensorType((1,), 32, True), lo=-(2**31), hi=2**31 - 1),
    )
    weight = torch.full((1, features), weight_code, dtype=torch.int8)
    tensors = {"y.weight": weight, "y.bias": torch.zeros(1, dtype=torch.int32)}
    return IntegerProgram("wide", "test", ops, tensors, logits_of(ops, torch.ones(1)))


def test_sums_beyond_float32_stay_exact():
    program = _wide_program(127, 255)  # 65535 * 127 * 255 = 2122350975 < 2^31, far beyond 2^24
    image = torch.full((1, 255, 1, 1), 65535.0)
    image[0, 0] = 65534.0
    assert int(ReferenceExecutor(program)(image)) == 65535 * 127 * 255 - 127


def test_a_program_that_could_overflow_is_refused():
    program = _wide_program(127, 259)
    with pytest.raises(
        HawqError, match=r"'y': partial sums span 0 \.\. 2155642755, beyond the -2147483648 \.\. 2147483646 an"
    ):
        certify(program)


def test_no_accumulator_may_equal_the_threshold_that_is_never_reached():
    def with_bias(bias):
        program = _wide_program(1, 1)
        tensors = {**program.tensors, "y.bias": torch.tensor([bias], dtype=torch.int32)}
        return dataclasses.replace(program, tensors=tensors)

    assert certify(with_bias(2**31 - 2 - 65535)).bounds[0].hi == 2**31 - 2
    with pytest.raises(HawqError, match="an int32 accumulator may hold"):
        certify(with_bias(2**31 - 1 - 65535))


def test_thresholds_compare_up_to_the_ends_of_int32():
    source, out = TensorType((2, 1, 3), 32, True), TensorType((2, 1, 3), 4, True)
    x = torch.tensor([[-(2**31), 0, 2**31 - 2], [-(2**31), 9, 10]], dtype=torch.int32).view(1, 2, 1, 3)
    threshold = torch.tensor([[-(2**31), 2**31 - 2, 2**31 - 1], [10, 10, 10]], dtype=torch.int32)
    constants = {"threshold": threshold, "level": torch.tensor([-8, -1, 1, 7], dtype=torch.int32)}
    op = o.Threshold(name="op", inputs=("x",), out=out)
    assert execute_op(op, [x], [source], constants).flatten().tolist() == [-1, -1, 1, -8, -8, 7]


def test_accumulators_are_pooled_exactly():
    kind = TensorType((1, 1, 2), 32, True)
    geometry = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    op = o.MaxPool2d(name="op", inputs=("x",), out=TensorType((1, 1, 1), 32, True), kernel=(1, 2), **geometry)
    x = torch.tensor([2**30 + 1, 2**30], dtype=torch.int32).view(1, 1, 1, 2)  # equal in float32
    assert int(execute_op(op, [x], [kind], {})) == 2**30 + 1


def test_a_network_with_accumulators_inside_equals_the_oracle():
    program = binary_network()
    image = torch.randn(2, 2, 6, 5, generator=torch.Generator().manual_seed(3))
    expected = {}
    for op in program.ops:
        inputs = [expected[name] for name in op.inputs] or [image.numpy()]
        types = [program.types[name] for name in op.inputs]
        expected[op.name] = run(op, inputs, types, program.constants(op))
    found = ReferenceExecutor(program).trace(image)
    for name, codes in expected.items():
        assert found[name].tolist() == codes.tolist(), name
    assert len(set(expected["sign"].flatten())) == 2
    assert len(set(expected["steps"].flatten())) == 4
    assert ReferenceExecutor(program)(image).tolist() == expected[program.output.tensor].tolist()


def test_images_of_another_type_or_shape_are_refused():
    executor = ReferenceExecutor(_wide_program(1, 3))
    with pytest.raises(HawqError, match=r"wants images of torch\.float32"):
        executor(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))
    with pytest.raises(HawqError, match=r"shape \(N, 3, 1, 1\)"):
        executor(torch.zeros(1, 4, 1, 1))
    with pytest.raises(HawqError, match="NaN"):
        executor(torch.full((1, 3, 1, 1), float("nan")))
