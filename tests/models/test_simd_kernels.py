"""Each kernel compared with its NumPy reference, in the kernel's layout, with every instruction
set."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from llvmlite import ir
from numpy.typing import NDArray

from leadline.models._shapes import CHANNELS, HALVE, INNER, TAIL, WIDEN, Convolution
from leadline.models.simd import convolutions, elementwise, reference, single
from leadline.models.simd.compiler import Compiled
from leadline.models.simd.emitter import Emitter
from leadline.models.simd.fields import Field
from leadline.models.simd.instruction_set import InstructionSet
from leadline.models.simd.kernel_args import aligned_zeros
from leadline.models.simd.signatures import Kernel, KernelSignature, Kind
from leadline.models.simd.tensor_args import TensorArgs

Floats = NDArray[np.float32]

AREA = INNER.output_size**2

# Shapes that the network lacks: padding with a stride, an odd size, few channels, a kernel of 1.
OTHER = Convolution(inputs=2, outputs=3, kernel=3, stride=2, padding=1, size=9)
POINTWISE = Convolution(inputs=3, outputs=2, kernel=1, size=7)

SHAPES = [
    pytest.param(shape, id=name)
    for name, shape in (
        ("widen", WIDEN),
        ("halve", HALVE),
        ("inner", INNER),
        ("tail", TAIL),
        ("other", OTHER),
        ("pointwise", POINTWISE),
    )
]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles each kernel again, because the cache identifies modules only by name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def run(emit: Callable[[ir.Module], Kernel], isa: InstructionSet, **arguments: Any) -> None:
    """Compiles the kernel "kernel" and calls it once, with arrays by address."""
    kernels: list[Kernel] = []
    compiled = Compiled("kernel", lambda module: kernels.append(emit(module)), isa)
    [kernel] = kernels
    function = compiled.function("kernel", kernel.signature)
    values = {
        name: value.ctypes.data if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }
    function(*kernel.signature.ordered(values))


def drawn(random: np.random.Generator, *shape: int) -> Floats:
    """Returns normally distributed numbers with the alignment of vectors."""
    values = aligned_zeros(*shape)
    values[:] = random.standard_normal(shape)
    return values


def unwritten(*shape: int) -> Floats:
    """Returns NaNs, so that a missing result of the kernel is detected."""
    values = aligned_zeros(*shape)
    values[:] = np.nan
    return values


def assert_equal_but_for_rounding(actual: Any, expected: Any) -> None:
    """Compares up to the rounding errors of sums of a few hundred float32 products."""
    tolerance = 64 * np.finfo(np.float32).eps * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("add", "relu"), [(False, False), (True, True)])
@pytest.mark.parametrize("shape", SHAPES)
def test_convolution(
    shape: Convolution, add: bool, relu: bool, isa: InstructionSet, random: np.random.Generator
) -> None:
    lanes, kernel = isa.lanes, shape.kernel
    images = drawn(random, shape.inputs, shape.size, shape.size, lanes)
    weights = drawn(random, kernel, kernel, shape.inputs, shape.outputs)
    biases = drawn(random, shape.outputs)
    result = unwritten(shape.outputs, shape.output_size, shape.output_size, lanes)
    addend = drawn(random, *result.shape) if add else None

    run(
        lambda module: convolutions.emit_convolution(
            module, "kernel", shape, lanes=lanes, add=add, relu=relu
        ),
        isa,
        images=images,
        weights=weights,
        biases=biases,
        addend=addend,
        result=result,
    )

    expected = reference.convolution(
        shape, images, weights, biases, 0.0 if addend is None else addend, relu=relu
    )
    assert_equal_but_for_rounding(result, expected)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_input_gradient(
    shape: Convolution, add: bool, isa: InstructionSet, random: np.random.Generator
) -> None:
    lanes, kernel = isa.lanes, shape.kernel
    grad_output = drawn(random, shape.outputs, shape.output_size, shape.output_size, lanes)
    weights = drawn(random, kernel, kernel, shape.outputs, shape.inputs)
    result = unwritten(shape.inputs, shape.size, shape.size, lanes)
    addend = drawn(random, *result.shape) if add else None

    run(
        lambda module: convolutions.emit_input_gradient(
            module, "kernel", shape, lanes=lanes, add=add
        ),
        isa,
        grad_output=grad_output,
        weights=weights,
        addend=addend,
        result=result,
    )

    expected = reference.input_gradient(
        shape, grad_output, weights, 0.0 if addend is None else addend
    )
    assert_equal_but_for_rounding(result, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_weight_gradient(
    shape: Convolution, isa: InstructionSet, random: np.random.Generator
) -> None:
    lanes, kernel = isa.lanes, shape.kernel
    images = drawn(random, shape.inputs, shape.size, shape.size, lanes)
    grad_output = drawn(random, shape.outputs, shape.output_size, shape.output_size, lanes)
    result = unwritten(kernel, kernel, shape.inputs, shape.outputs)

    run(
        lambda module: convolutions.emit_weight_gradient(module, "kernel", shape, lanes=lanes),
        isa,
        images=images,
        grad_output=grad_output,
        scratch=unwritten(shape.weights, lanes),
        result=result,
    )

    expected = reference.weight_gradient(shape, images, grad_output)
    assert_equal_but_for_rounding(result, expected)


def test_scaling(isa: InstructionSet, random: np.random.Generator) -> None:
    area, channels = 12, WIDEN.inputs
    pixels = random.integers(0, 256, (isa.lanes, area, channels), dtype=np.uint8)
    pixels[0] = np.linspace(0, 255, pixels[0].size).reshape(area, channels)
    result = unwritten(channels, area, isa.lanes)
    run(
        lambda module: elementwise.emit_scaling(
            module, "kernel", channels=channels, area=area, lanes=isa.lanes
        ),
        isa,
        pixels=pixels,
        result=result,
    )
    assert_equal_but_for_rounding(result, reference.scaling(pixels))
    # Rounded twice like torch's operations, to the bit.
    assert np.array_equal(result, pixels.T.astype(np.float32) / np.float32(127.5) - np.float32(1))


@pytest.mark.parametrize("missing", [0, 3])
def test_statistics(missing: int, isa: InstructionSet, random: np.random.Generator) -> None:
    values, mask = drawn(random, CHANNELS, AREA, isa.lanes), mask_of(isa, missing)
    values += 5  # far from zero, where a sum of squares would lose the variance
    result = np.full((CHANNELS, 2), np.nan)

    run(
        lambda module: elementwise.emit_statistics(module, "kernel", area=AREA, lanes=isa.lanes),
        isa,
        values=values,
        mask=mask,
        count=isa.lanes - missing,
        result=result,
    )

    expected = reference.statistics(values, mask)
    for column in range(2):
        assert_equal_but_for_rounding(result[:, column], expected[:, column])


def test_statistics_merge(isa: InstructionSet, random: np.random.Generator) -> None:
    counts = np.array([16, 16, 3], np.float32)
    statistics = random.uniform(1, 2, (len(counts), CHANNELS, 2))
    weights, biases = drawn(random, CHANNELS), drawn(random, CHANNELS)
    result = unwritten(4, CHANNELS)

    run(
        lambda module: elementwise.emit_statistics_merge(
            module, "kernel", area=AREA, lanes=isa.lanes
        ),
        isa,
        statistics=statistics,
        counts=counts,
        groups=len(counts),
        weights=weights,
        biases=biases,
        result=result,
    )

    expected = reference.statistics_merge(statistics, counts, weights, biases, area=AREA)
    for row in range(4):
        assert_equal_but_for_rounding(result[row], expected[row])


@pytest.mark.parametrize("add", [False, True])
def test_normalization(add: bool, isa: InstructionSet, random: np.random.Generator) -> None:
    values, scale_shift = drawn(random, CHANNELS, AREA, isa.lanes), drawn(random, 2, CHANNELS)
    addend = drawn(random, *values.shape) if add else None
    result = unwritten(*values.shape)

    run(
        lambda module: elementwise.emit_normalization(
            module, "kernel", area=AREA, lanes=isa.lanes, add=add
        ),
        isa,
        values=values,
        scale_shift=scale_shift,
        addend=addend,
        result=result,
    )

    expected = reference.normalization(values, scale_shift, 0.0 if addend is None else addend)
    assert_equal_but_for_rounding(result, expected)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_relu_gradient(
    normalized: bool, keep: bool, isa: InstructionSet, random: np.random.Generator
) -> None:
    grad_output, inputs = (drawn(random, CHANNELS, AREA, isa.lanes) for _ in range(2))
    outputs = drawn(random, *inputs.shape)
    np.maximum(outputs, 0, out=outputs)
    means, sums = drawn(random, CHANNELS), unwritten(CHANNELS, 2)
    grad_skip = unwritten(*inputs.shape) if keep else None
    gradient, expected_sums = reference.relu_gradient(grad_output, outputs, inputs, means)

    run(
        lambda module: elementwise.emit_relu_gradient(
            module, "kernel", area=AREA, lanes=isa.lanes, normalized=normalized, keep=keep
        ),
        isa,
        grad_output=grad_output,
        outputs=outputs,
        inputs=inputs if normalized else None,
        means=means if normalized else None,
        grad_skip=grad_skip,
        sums=sums,
    )

    np.testing.assert_array_equal(grad_output, gradient)
    if grad_skip is not None:
        np.testing.assert_array_equal(grad_skip, gradient)
    columns = 2 if normalized else 1
    assert_equal_but_for_rounding(sums[:, :columns], expected_sums[:, :columns])


def test_gradient_sums_merge(isa: InstructionSet, random: np.random.Generator) -> None:
    sums, weights = drawn(random, 3, CHANNELS, 2), drawn(random, CHANNELS)
    variances, result = drawn(random, CHANNELS) ** 2, unwritten(5, CHANNELS)

    run(
        lambda module: elementwise.emit_gradient_sums_merge(module, "kernel", lanes=isa.lanes),
        isa,
        sums=sums,
        groups=len(sums),
        numbers=35.0 * AREA,
        variances=variances,
        weights=weights,
        result=result,
    )

    expected = reference.gradient_sums_merge(sums, 35.0 * AREA, variances, weights)
    for row in range(5):
        assert_equal_but_for_rounding(result[row], expected[row])


@pytest.mark.parametrize("missing", [0, 3])
def test_normalization_gradient(
    missing: int, isa: InstructionSet, random: np.random.Generator
) -> None:
    grad_output, inputs = (drawn(random, CHANNELS, AREA, isa.lanes) for _ in range(2))
    means, factors = drawn(random, CHANNELS), drawn(random, 3, CHANNELS)
    mask = mask_of(isa, missing)
    expected = reference.normalization_gradient(grad_output, inputs, means, factors, mask)

    run(
        lambda module: elementwise.emit_normalization_gradient(
            module, "kernel", area=AREA, lanes=isa.lanes
        ),
        isa,
        grad_output=grad_output,
        inputs=inputs,
        means=means,
        factors=factors,
        mask=mask,
    )

    assert_equal_but_for_rounding(grad_output, expected)


@pytest.mark.parametrize("area", [AREA, WIDEN.output_size**2, 25])
def test_channel_sums(area: int, isa: InstructionSet, random: np.random.Generator) -> None:
    values, sums = drawn(random, CHANNELS, area, isa.lanes), unwritten(CHANNELS)

    run(
        lambda module: elementwise.emit_channel_sums(module, "kernel", area=area, lanes=isa.lanes),
        isa,
        values=values,
        sums=sums,
    )

    assert_equal_but_for_rounding(sums, reference.channel_sums(values))


@pytest.mark.parametrize(("add", "relu"), [(False, False), (True, True)])
@pytest.mark.parametrize("shape", SHAPES[:4])
def test_convolution_of_a_single_image(
    shape: Convolution, add: bool, relu: bool, isa: InstructionSet, random: np.random.Generator
) -> None:
    kernel, size, output_size = shape.kernel, shape.size, shape.output_size
    # The image has its border in memory: the reference convolves the same numbers without padding.
    bordered = Convolution(
        inputs=shape.inputs,
        outputs=single.LANES,
        kernel=kernel,
        stride=shape.stride,
        size=size + 2 * shape.padding,
    )
    image = drawn(random, bordered.size, bordered.size, shape.inputs)
    weights = drawn(random, kernel, kernel, shape.inputs, single.LANES)
    biases = drawn(random, single.LANES)
    result = unwritten(output_size, output_size, single.LANES)
    addend = drawn(random, *result.shape) if add else None

    run(
        lambda module: single.emit_convolution(
            module, "kernel", shape, pitch=bordered.size, to=output_size, add=add, relu=relu
        ),
        isa,
        images=image,
        weights=weights,
        biases=biases,
        addend=addend,
        result=result,
    )

    def channels_first(values: Floats) -> Floats:
        return values.transpose(2, 0, 1)[..., np.newaxis]

    expected = reference.convolution(
        bordered,
        channels_first(image),
        weights,
        biases,
        0.0 if addend is None else channels_first(addend),
        relu=relu,
    )
    assert_equal_but_for_rounding(channels_first(result), expected)


def test_a_kernel_is_called_with_its_arguments_by_name() -> None:
    signature = KernelSignature(values=Kind.VECTORS, addend=None, sums=Kind.FLOATS)
    kernel = Emitter(ir.Module(), "kernel", signature, lanes=4).close()
    caller = Emitter(kernel.function.module, "caller", signature, lanes=4)
    values, sums = caller.arguments.values, caller.arguments.sums

    caller.call(kernel, sums=sums, values=values, addend=None)

    [call] = caller.builder.block.instructions
    assert list(call.args) == [values, sums]
    with pytest.raises(TypeError, match="the kernel takes values, sums, not values, total"):
        caller.call(kernel, values=values, total=sums)


def test_an_array_of_another_type_or_with_gaps_is_refused() -> None:
    args = TensorArgs()

    with pytest.raises(ValueError, match="IMAGES must be contiguous float32, not float64"):
        args.set_array(Field.IMAGES, np.zeros(4))
    with pytest.raises(ValueError, match=r"STATISTICS must be contiguous torch.float64, not"):
        args.set_tensor(Field.STATISTICS, torch.zeros(4))
    with pytest.raises(ValueError, match=r"IMAGES must be contiguous float32, .* strides"):
        args.set_array(Field.IMAGES, np.zeros((4, 4), np.float32).T)
    with pytest.raises(ValueError, match=r"IMAGES must be contiguous torch.float32, .* strides"):
        args.set_tensor(Field.IMAGES, torch.zeros(4, 4).T)


def mask_of(isa: InstructionSet, missing: int) -> Floats:
    mask = aligned_zeros(isa.lanes)
    mask[: isa.lanes - missing] = 1
    return mask
