"""`leadline.v1.InspectionService`."""

from typing import Any

from grpc import aio

from leadline.server.api.pages import PageTokens, page_size
from leadline.server.api.selectors import to_selector
from leadline.server.errors import InvalidArgumentError
from leadline.server.inspection.misclassified import (
    Example,
    Grouping,
    Inspector,
    Listing,
    ListingQuery,
)
from leadline.server.serving.catalog import ByName, Catalog, CheckpointRef
from leadline.server.threads import Threads
from leadline.v1 import inspection_service_pb2, inspection_service_pb2_grpc

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE_SIZE = 100
_MAX_PER_CLASS = 10_000

_GROUPINGS = {
    inspection_service_pb2.GROUPING_UNSPECIFIED: Grouping.PREDICTED_CLASS,
    inspection_service_pb2.GROUPING_PREDICTED_CLASS: Grouping.PREDICTED_CLASS,
    inspection_service_pb2.GROUPING_TRUE_CLASS: Grouping.TRUE_CLASS,
}


class InspectionServicer(inspection_service_pb2_grpc.InspectionServiceServicer):
    """Shows what checkpoints get wrong."""

    def __init__(
        self, *, catalog: Catalog, inspector: Inspector, threads: Threads, tokens: PageTokens
    ) -> None:
        self._catalog = catalog
        self._inspector = inspector
        self._threads = threads
        self._tokens = tokens

    async def ListMisclassified(  # noqa: N802
        self, request: inspection_service_pb2.ListMisclassifiedRequest, context: Context
    ) -> inspection_service_pb2.ListMisclassifiedResponse:
        """Lists test images that a checkpoint gets wrong."""
        del context
        size = page_size(request.page_size, default=_DEFAULT_PAGE_SIZE)
        query = _query(request)
        selector = to_selector(request, request.WhichOneof("selector"))
        token_query = [
            "misclassified",
            str(selector),
            query.per_class,
            query.grouping,
            query.include_correct,
        ]
        position = self._tokens.read(token_query, request.page_token)
        offset = 0
        if position:
            # The later pages are of the epoch that the first was of.
            job_id, epoch, offset = position
            selector = ByName(job_id=job_id, epoch=epoch)
        checkpoint = await self._catalog.resolve(selector)
        listing = await self._threads.run(
            self._inspector.list_misclassified, checkpoint, query, offset=offset, limit=size
        )
        after = offset + len(listing.examples)
        position = [checkpoint.model.job.job_id, checkpoint.epoch.epoch, after]
        more = after < listing.total
        return _response(
            checkpoint, listing, self._tokens.make(token_query, position) if more else ""
        )


def _query(request: inspection_service_pb2.ListMisclassifiedRequest) -> ListingQuery:
    per_class = request.per_class if request.HasField("per_class") else None
    if per_class is not None and not 1 <= per_class <= _MAX_PER_CLASS:
        raise InvalidArgumentError.of(
            "per_class", f"must be from 1 to {_MAX_PER_CLASS}, or unset for all, is {per_class}"
        )
    if request.grouping not in _GROUPINGS:
        raise InvalidArgumentError.of(
            "grouping", f"is {request.grouping}, which this server does not know"
        )
    return ListingQuery(
        per_class=per_class,
        grouping=_GROUPINGS[request.grouping],
        include_correct=request.include_correct,
    )


def _response(
    checkpoint: CheckpointRef, listing: Listing, next_page_token: str
) -> inspection_service_pb2.ListMisclassifiedResponse:
    names = checkpoint.model.started.class_names
    return inspection_service_pb2.ListMisclassifiedResponse(
        examples=[_example(example, names) for example in listing.examples],
        next_page_token=next_page_token,
        total_size=listing.total,
        model=checkpoint.name,
        class_counts=[
            inspection_service_pb2.ClassCount(
                class_index=index, class_name=name, wrong=count.wrong, correct=count.correct
            )
            for index, (name, count) in enumerate(zip(names, listing.class_counts, strict=True))
        ],
        test_images=listing.test_images,
        test_accuracy=listing.correct / listing.test_images,
    )


def _example(example: Example, names: tuple[str, ...]) -> inspection_service_pb2.Example:
    return inspection_service_pb2.Example(
        index=example.index,
        png=example.png,
        true_class_index=example.true_class,
        true_class_name=names[example.true_class],
        predicted_class_index=example.predicted_class,
        predicted_class_name=names[example.predicted_class],
        probability=example.probability,
    )
