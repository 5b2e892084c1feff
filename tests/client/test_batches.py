"""Images of any kinds and sizes are batched within limits, and answered one by one."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from leadline.client import ImageFailure, InvalidArgumentError, Prediction, RpcError
from leadline.client._batches import Batch, Batcher, BatchLimits, LoadedImage
from leadline.client._error_details import ErrorDetails, Violation
from leadline.client._errors import ResourceExhaustedError
from leadline.client._images import Kind, LoadableImage
from leadline.client._streamed import StreamedBatch

# The most images that a server names in one error.
MOST_VIOLATIONS = 20

kinds = st.sampled_from([*Kind, None])


@st.composite
def images(draw: st.DrawFn, most: int = 60) -> list[LoadableImage]:
    drawn = draw(st.lists(st.tuples(kinds, st.integers(0, 100)), max_size=most))
    return [
        LoadableImage(index=index, kind=kind, size=size if kind else 0, load=partial(bytes, size))
        for index, (kind, size) in enumerate(drawn)
    ]


limits = st.builds(BatchLimits, images=st.integers(1, 10), bytes=st.integers(1, 250))


def batched(images: Sequence[LoadableImage], limits: BatchLimits) -> list[Batch]:
    batcher = Batcher(limits)
    found = [batcher.add(image) for image in images]
    return [batch for batch in (*found, batcher.rest()) if batch is not None]


@given(images=images(), limits=limits)
def test_every_image_is_in_one_batch_and_all_are_in_order(
    images: list[LoadableImage], limits: BatchLimits
) -> None:
    assert [image for batch in batched(images, limits) for image in batch] == images


@given(images=images(), limits=limits)
def test_a_batch_has_one_kind_and_keeps_to_the_limits(
    images: list[LoadableImage], limits: BatchLimits
) -> None:
    for batch in batched(images, limits):
        assert 1 <= len(batch) <= limits.images
        assert len({image.kind for image in batch} - {None}) <= 1
        size = sum(image.size for image in batch)
        assert size <= limits.bytes or len([image for image in batch if image.size]) == 1


@given(images=images(), limits=limits)
def test_a_batch_ends_for_a_reason(images: list[LoadableImage], limits: BatchLimits) -> None:
    found = batched(images, limits)
    for batch, following in itertools.pairwise(found):
        kinds = {image.kind for image in batch} - {None}
        assert (
            len(batch) == limits.images
            or sum(image.size for image in batch) + following[0].size > limits.bytes
            or (following[0].kind is not None and kinds != {following[0].kind})
        )


class Server:
    """Refuses requests like a server, and records them."""

    def __init__(self, bad: Callable[[int], bool], most: int) -> None:
        self._bad = bad
        self._most = most
        self.asked = 0

    def error(self, images: Sequence[LoadedImage]) -> RpcError | None:
        self.asked += 1
        if len(images) > self._most:
            return ResourceExhaustedError("too large", ErrorDetails(reason="MESSAGE_TOO_LARGE"))
        bad = [at for at, image in enumerate(images) if self._bad(image.index)]
        if not bad:
            return None
        named = [Violation(f"encoded.images[{at}]", "is bad") for at in bad[:MOST_VIOLATIONS]]
        return InvalidArgumentError("is bad", ErrorDetails(violations=tuple(named)))


@given(
    count=st.integers(1, 80),
    first=st.integers(0, 1000),
    bad=st.sets(st.integers(0, 79)),
    most=st.integers(1, 100),
)
def test_what_is_refused_is_settled_image_by_image(
    count: int, first: int, bad: set[int], most: int
) -> None:
    server = Server(lambda index: index - first in bad, most)
    streamed = StreamedBatch(
        tuple(
            LoadableImage(index=first + at, kind=Kind.ENCODED, size=1, load=lambda: b"x")
            for at in range(count)
        )
    )
    parts: list[Sequence[LoadedImage]] = [streamed.images]
    while parts:
        part = parts.pop(0)
        error = server.error(part)
        if error is None:
            streamed.answer(part, [Prediction(class_index=image.index) for image in part])
        else:
            parts = [*streamed.refuse(part, error), *parts]

    assert len(streamed.results) == count
    for at, result in enumerate(streamed.results):
        if at in bad:
            assert isinstance(result, ImageFailure)
            assert result.index == first + at
            assert isinstance(result.error, InvalidArgumentError)
            assert [one.field for one in result.error.violations] == [f"images[{first + at}]"]
        else:
            assert isinstance(result, Prediction)
            assert result.class_index == first + at
    assert server.asked <= 2 * count
