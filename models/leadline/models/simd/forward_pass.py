"""The entry points that compute features from images: `forward` in training, else `infer`."""

from llvmlite import ir

from leadline.models._shapes import CHANNELS, HALVE, INNER, TAIL, WIDEN
from leadline.models.simd import convolutions, elementwise
from leadline.models.simd.emitter import const
from leadline.models.simd.fields import (
    AREA,
    HALVE_LAYER,
    INNER_LAYER,
    PLANE,
    TAIL_LAYER,
    WIDEN_LAYER,
    Field,
)
from leadline.models.simd.kernel_builder import KernelBuilder, Position
from leadline.models.simd.signatures import Kernel, Value


def emit_forward_pass(module: ir.Module, *, batch_norm: bool, skip: int, lanes: int) -> None:
    """Writes `forward(args, thread, threads)`: from images to features, in a training step.

    An identity connection spans `skip` convolutions; 0 if there are none.
    """
    outer = _OuterLayers(module, lanes=lanes)
    scale = _Scaling(module, lanes=lanes)
    inner = (_NormalizedLayer if batch_norm else _PlainLayer)(module, skip=skip, lanes=lanes)
    run = KernelBuilder(module, "forward", lanes=lanes)

    def head(group: Value) -> None:
        scale.emit(run, group, group)
        widened = run.address(Field.WIDENED, (group, WIDEN.output_vectors))
        outer.head(run, group, widened, run.plane(Field.ACTIVATIONS, const(0), group))

    def tail(group: Value) -> None:
        outer.tail(run, group, run.plane(Field.ACTIVATIONS, run.layers, group))

    run.each_group(head)
    run.each_layer(skip, lambda layer, position: inner.emit(run, layer, position))
    run.each_group(tail)
    run.code.close()


def emit_inference_pass(
    module: ir.Module, *, skip: int, lanes: int, reads_bytes: bool = False
) -> None:
    """Writes `infer(args, thread, threads)`: from images to features, batch norms folded.

    A thread computes all layers of a group before the next group, so that activations
    stay in the processor's caches. If `reads_bytes`, it first scales the pixels of a group.
    """
    outer = _OuterLayers(module, lanes=lanes)
    scale = _Scaling(module, lanes=lanes) if reads_bytes else None
    inner = _inner_kernels(module, skip, lanes)
    run = KernelBuilder(module, "infer", lanes=lanes)
    code = run.code
    widened = run.address(Field.WIDENED, (run.thread, WIDEN.output_vectors))

    def activations(layer: Value) -> Value:
        """The input of a layer: layers alternate between two buffers."""
        return run.address(Field.ACTIVATIONS, (run.thread, 2 * PLANE), (code.is_odd(layer), PLANE))

    def at_group(group: Value) -> None:
        images = group
        if scale:
            images = run.thread
            scale.emit(run, group, images)
        outer.head(run, images, widened, activations(const(0)))
        run.convolve_blocks(skip, inner, activations, activations)
        outer.tail(run, group, activations(run.layers))

    run.each_group(at_group)
    code.close()


def _inner_kernels(module: ir.Module, skip: int, lanes: int) -> dict[bool, Kernel]:
    """The convolutions with a ReLU inside the blocks, by whether they add an identity."""
    return {
        add: convolutions.emit_convolution(
            module, f"_inner_{add}", INNER, lanes=lanes, add=add, relu=True
        )
        for add in sorted({False, skip > 0})
    }


class _Scaling:
    """Writes the conversion of pixels to images."""

    def __init__(self, module: ir.Module, *, lanes: int) -> None:
        self._pixels = WIDEN.input_vectors * lanes
        self._kernel = elementwise.emit_scaling(
            module, "_scale", channels=WIDEN.inputs, area=WIDEN.size**2, lanes=lanes
        )

    def emit(self, run: KernelBuilder, group: Value, place: Value) -> None:
        """Calls the kernel for a group; `place` is the index of the result in `IMAGES`."""
        run.code.call(
            self._kernel,
            pixels=run.address(Field.RGB, (group, self._pixels)),
            result=run.address(Field.IMAGES, (place, WIDEN.input_vectors)),
        )


class _OuterLayers:
    """The kernels of the convolutions before and after the blocks, without activations."""

    def __init__(self, module: ir.Module, *, lanes: int) -> None:
        self._widen, self._halve, self._tail = (
            convolutions.emit_convolution(module, name, shape, lanes=lanes, add=False, relu=False)
            for name, shape in (("_widen", WIDEN), ("_halve", HALVE), ("_tail", TAIL))
        )

    def head(self, run: KernelBuilder, place: Value, widened: Value, result: Value) -> None:
        images = run.address(Field.IMAGES, (place, WIDEN.input_vectors))
        run.convolve(self._widen, WIDEN_LAYER, images=images, result=widened)
        run.convolve(self._halve, HALVE_LAYER, images=widened, result=result)

    def tail(self, run: KernelBuilder, group: Value, images: Value) -> None:
        features = run.address(Field.FEATURES, (group, TAIL.output_vectors))
        run.convolve(self._tail, TAIL_LAYER, images=images, result=features)


class _PlainLayer:
    """Writes a layer of a block without batch norm: a convolution and a ReLU."""

    def __init__(self, module: ir.Module, *, skip: int, lanes: int) -> None:
        self._skip = skip
        self._convolve = _inner_kernels(module, skip, lanes)

    def emit(self, run: KernelBuilder, layer: Value, position: Position) -> None:
        start, above = _ends_of(run, layer, self._skip)

        def convolve(group: Value) -> None:
            add = position.ends_skip
            run.convolve(
                self._convolve[add],
                INNER_LAYER,
                images=run.plane(Field.ACTIVATIONS, layer, group),
                addend=run.plane(Field.ACTIVATIONS, start, group) if add else None,
                result=run.plane(Field.ACTIVATIONS, above, group),
                number=layer,
            )

        run.each_group(convolve)


class _NormalizedLayer:
    """Writes a layer of a block with batch norm: a convolution, the batch norm, a ReLU."""

    def __init__(self, module: ir.Module, *, skip: int, lanes: int) -> None:
        self._skip = skip
        self._convolve = convolutions.emit_convolution(
            module, "_inner", INNER, lanes=lanes, add=False, relu=False
        )
        size = {"area": AREA, "lanes": lanes}
        self._statistics = elementwise.emit_statistics(module, "_statistics", **size)
        self._merge = elementwise.emit_statistics_merge(module, "_merge_statistics", **size)
        self._normalize = {
            add: elementwise.emit_normalization(module, f"_normalize_{add}", add=add, **size)
            for add in sorted({False, skip > 0})
        }

    def emit(self, run: KernelBuilder, layer: Value, position: Position) -> None:
        start, above = _ends_of(run, layer, self._skip)

        def normalize(group: Value) -> None:
            add = position.ends_skip
            run.code.call(
                self._normalize[add],
                values=run.plane(Field.CONVOLVED, layer, group),
                scale_shift=run.address(
                    Field.NORMS, (layer, 4 * CHANNELS), (const(1), 2 * CHANNELS)
                ),
                addend=run.plane(Field.ACTIVATIONS, start, group) if add else None,
                result=run.plane(Field.ACTIVATIONS, above, group),
            )

        run.each_group(lambda group: self._convolve_group(run, layer, group))
        run.wait_for_all()
        # Each thread merges all groups, to the same bits: this is faster than a second barrier.
        run.code.call(
            self._merge,
            statistics=run.address(Field.STATISTICS, (run.index(layer, const(0)), 2 * CHANNELS)),
            counts=run.address(Field.COUNTS),
            groups=run.groups,
            weights=run.address(Field.NORM_WEIGHTS, (layer, CHANNELS)),
            biases=run.address(Field.NORM_BIASES, (layer, CHANNELS)),
            result=run.address(Field.NORMS, (layer, 4 * CHANNELS)),
        )
        run.each_group(normalize)

    def _convolve_group(self, run: KernelBuilder, layer: Value, group: Value) -> None:
        images = run.plane(Field.ACTIVATIONS, layer, group)
        convolved = run.plane(Field.CONVOLVED, layer, group)
        run.convolve(self._convolve, INNER_LAYER, images=images, result=convolved, number=layer)
        run.code.call(
            self._statistics,
            values=convolved,
            mask=run.address(Field.MASKS, (group, 1)),
            count=run.code.load(run.address(Field.COUNTS, (group, 1))),
            result=run.address(Field.STATISTICS, (run.index(layer, group), 2 * CHANNELS)),
        )


def _ends_of(run: KernelBuilder, layer: Value, skip: int) -> tuple[Value, Value]:
    """The activations at the start and the end of an identity connection that ends in a layer."""
    start = run.code.builder.sub(layer, const(skip - 1))
    return start, run.code.builder.add(layer, const(1))
