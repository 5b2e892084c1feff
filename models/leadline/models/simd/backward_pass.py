"""The entry point that computes the parameters' gradients from the features' gradient."""

from collections.abc import Sequence

from llvmlite import ir

from leadline.models._shapes import CHANNELS, HALVE, TAIL, WIDEN, Convolution
from leadline.models.simd import convolutions, elementwise
from leadline.models.simd.emitter import const
from leadline.models.simd.fields import (
    AREA,
    HALVE_LAYER,
    INNER_LAYER,
    PLANE,
    SCRATCH,
    TAIL_LAYER,
    TRANSPOSED,
    WIDEN_LAYER,
    Field,
    Layer,
)
from leadline.models.simd.kernel_builder import KernelBuilder, Position
from leadline.models.simd.signatures import Value


def emit_backward_pass(module: ir.Module, *, batch_norm: bool, skip: int, lanes: int) -> None:
    """Writes `backward(args, thread, threads)`: computes the parameters' gradients."""
    inner = _InnerLayer(module, batch_norm=batch_norm, skip=skip, lanes=lanes)
    outer = _OuterLayers(module, lanes=lanes)
    run = KernelBuilder(module, "backward", lanes=lanes)
    run.each_group(lambda group: outer.tail(run, group))
    run.each_layer(skip, lambda layer, at: inner.emit(run, layer, at), backward=True)
    run.each_group(lambda group: outer.head(run, group))
    run.code.close()


class _ConvolutionGradients:
    """Writes the gradients of a convolution's weights and of its input."""

    def __init__(
        self, module: ir.Module, layer: Layer, *, lanes: int, additions: Sequence[bool]
    ) -> None:
        self._layer, shape = layer, layer.shape
        name = f"_{layer.weights.name.lower()}"
        self._weights = convolutions.emit_weight_gradient(
            module, f"{name}_gradient", shape, lanes=lanes
        )
        self._input = {
            add: convolutions.emit_input_gradient(
                module, f"{name}_input_{add}", shape, lanes=lanes, add=add
            )
            for add in additions
        }

    def weights(
        self, run: KernelBuilder, index: Value, *, images: Value, grad_output: Value
    ) -> None:
        """Calls the kernel; `index` selects the entry of the weights' gradients."""
        run.code.call(
            self._weights,
            images=images,
            grad_output=grad_output,
            scratch=run.address(Field.SCRATCH, (run.thread, SCRATCH)),
            result=run.address(self._layer.grad_weights, (index, self._layer.shape.weights)),
        )

    def input(
        self,
        run: KernelBuilder,
        *,
        grad_output: Value,
        result: Value,
        addend: Value | None = None,
        number: Value | None = None,
    ) -> None:
        """Calls the kernel; `number` is the layer's number inside the blocks."""
        weights = TRANSPOSED[self._layer]
        run.code.call(
            self._input[addend is not None],
            grad_output=grad_output,
            weights=run.parameters(weights, number, self._layer.shape.weights),
            addend=addend,
            result=result,
        )


class _OuterLayers:
    """Writes the backward pass through the convolutions before and after the blocks."""

    def __init__(self, module: ir.Module, *, lanes: int) -> None:
        self._widen = _ConvolutionGradients(module, WIDEN_LAYER, lanes=lanes, additions=[])
        self._halve, self._tail = (
            _ConvolutionGradients(module, layer, lanes=lanes, additions=[False])
            for layer in (HALVE_LAYER, TAIL_LAYER)
        )
        self._sums = {
            shape: elementwise.emit_channel_sums(
                module, f"_{name}_biases", area=shape.output_size**2, lanes=lanes
            )
            for name, shape in (("halve", HALVE), ("widen", WIDEN))
        }

    def tail(self, run: KernelBuilder, group: Value) -> None:
        grad_output = run.address(Field.GRAD_FEATURES, (group, TAIL.output_vectors))
        images = run.plane(Field.ACTIVATIONS, run.layers, group)
        self._tail.weights(run, group, images=images, grad_output=grad_output)
        result = run.grad_output(run.layers, group)
        self._tail.input(run, grad_output=grad_output, result=result)

    def head(self, run: KernelBuilder, group: Value) -> None:
        grad_output = run.grad_output(const(0), group)
        widened = run.address(Field.WIDENED, (group, WIDEN.output_vectors))
        grad_widened = run.address(Field.GRAD_WIDENED, (run.thread, WIDEN.output_vectors))
        images = run.address(Field.IMAGES, (group, WIDEN.input_vectors))
        self._biases(run, HALVE, Field.GRAD_HALVE_BIASES, group, grad_output)
        self._halve.weights(run, group, images=widened, grad_output=grad_output)
        self._halve.input(run, grad_output=grad_output, result=grad_widened)
        self._biases(run, WIDEN, Field.GRAD_WIDEN_BIASES, group, grad_widened)
        self._widen.weights(run, group, images=images, grad_output=grad_widened)

    def _biases(
        self, run: KernelBuilder, shape: Convolution, field: Field, group: Value, values: Value
    ) -> None:
        sums = run.address(field, (group, shape.outputs))
        run.code.call(self._sums[shape], values=values, sums=sums)


class _InnerLayer:
    """Writes the backward pass through a layer of a block: ReLU, batch norm, convolution."""

    def __init__(self, module: ir.Module, *, batch_norm: bool, skip: int, lanes: int) -> None:
        variants = sorted({False, skip > 0})
        self._relu = {
            keep: elementwise.emit_relu_gradient(
                module, f"_relu_{keep}", area=AREA, lanes=lanes, normalized=batch_norm, keep=keep
            )
            for keep in variants
        }
        self._batch_norm = _BatchNorm(module, lanes=lanes) if batch_norm else None
        self._convolution = _ConvolutionGradients(
            module, INNER_LAYER, lanes=lanes, additions=variants
        )

    def emit(self, run: KernelBuilder, layer: Value, position: Position) -> None:
        above = run.code.builder.add(layer, const(1))
        run.each_group(lambda group: self._relu_gradient(run, layer, above, group, position))
        if self._batch_norm:
            run.wait_for_all()
            self._batch_norm.merge_sums(run, layer)
        run.each_group(lambda group: self._norm_and_convolution(run, layer, above, group, position))

    def _relu_gradient(
        self, run: KernelBuilder, layer: Value, above: Value, group: Value, position: Position
    ) -> None:
        keep, normalized = position.ends_skip, self._batch_norm is not None
        run.code.call(
            self._relu[keep],
            grad_output=run.grad_output(above, group),
            outputs=run.plane(Field.ACTIVATIONS, above, group),
            inputs=run.plane(Field.CONVOLVED, layer, group) if normalized else None,
            means=run.address(Field.NORMS, (layer, 4 * CHANNELS)) if normalized else None,
            grad_skip=run.address(Field.GRAD_SKIP, (group, PLANE)) if keep else None,
            sums=run.address(Field.NORM_SUMS, (run.index(layer, group), 2 * CHANNELS)),
        )

    def _norm_and_convolution(
        self, run: KernelBuilder, layer: Value, above: Value, group: Value, position: Position
    ) -> None:
        grad_output = run.grad_output(above, group)
        if self._batch_norm:
            self._batch_norm.gradient(run, layer, group, grad_output)
        images, index = run.plane(Field.ACTIVATIONS, layer, group), run.index(layer, group)
        self._convolution.weights(run, index, images=images, grad_output=grad_output)
        self._convolution.input(
            run,
            grad_output=grad_output,
            addend=run.address(Field.GRAD_SKIP, (group, PLANE)) if position.starts_skip else None,
            result=run.grad_output(layer, group),
            number=layer,
        )


class _BatchNorm:
    """Writes the backward pass through a batch norm."""

    def __init__(self, module: ir.Module, *, lanes: int) -> None:
        self._merge = elementwise.emit_gradient_sums_merge(module, "_merge_sums", lanes=lanes)
        self._gradient = elementwise.emit_normalization_gradient(
            module, "_norm", area=AREA, lanes=lanes
        )

    def merge_sums(self, run: KernelBuilder, layer: Value) -> None:
        run.code.call(
            self._merge,
            sums=run.address(Field.NORM_SUMS, (run.index(layer, const(0)), 2 * CHANNELS)),
            groups=run.groups,
            numbers=run.code.load(run.address(Field.PIXELS)),
            variances=run.address(Field.NORMS, (layer, 4 * CHANNELS), (const(1), CHANNELS)),
            weights=run.address(Field.NORM_WEIGHTS, (layer, CHANNELS)),
            result=run.address(Field.NORM_GRADIENTS, (layer, 5 * CHANNELS)),
        )

    def gradient(self, run: KernelBuilder, layer: Value, group: Value, grad_output: Value) -> None:
        run.code.call(
            self._gradient,
            grad_output=grad_output,
            inputs=run.plane(Field.CONVOLVED, layer, group),
            means=run.address(Field.NORMS, (layer, 4 * CHANNELS)),
            factors=run.address(Field.NORM_GRADIENTS, (layer, 5 * CHANNELS), (const(2), CHANNELS)),
            mask=run.address(Field.MASKS, (group, 1)),
        )
