"""`leadline.v1.InspectionService`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from grpc import aio

from leadline.server.api.comparisons import check_same_images, comparison_message, comparison_query
from leadline.server.api.confusion import confusion_message
from leadline.server.api.examples import to_split
from leadline.server.api.label_errors import (
    check_models,
    good_models,
    label_error_query,
    label_errors_message,
    named_models,
)
from leadline.server.api.listings import listing_message, listing_query
from leadline.server.api.pages import PageTokens, page_size, query_of
from leadline.server.api.selectors import to_selector
from leadline.server.inspection.inspector import Inspector
from leadline.server.serving.catalog import ByName, Catalog, CheckpointRef, Selector
from leadline.server.thread_pool import ThreadPool
from leadline.v1 import inspection_service_pb2 as pb
from leadline.v1 import inspection_service_pb2_grpc

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE_SIZE = 100


@dataclass(frozen=True, kw_only=True)
class _Page:
    """A page of a listing.

    Attributes:
        of: the request but for its page.
        pinned: the checkpoints that the first page was of; empty on the first.
        offset: examples on the pages before.
        limit: at most so many on this one.
    """

    of: list[str]
    pinned: Sequence[ByName]
    offset: int
    limit: int


class InspectionServicer(inspection_service_pb2_grpc.InspectionServiceServicer):
    """Shows what checkpoints get wrong."""

    def __init__(
        self, *, catalog: Catalog, inspector: Inspector, threads: ThreadPool, tokens: PageTokens
    ) -> None:
        self._catalog = catalog
        self._inspector = inspector
        self._threads = threads
        self._tokens = tokens

    async def ListMisclassified(  # noqa: N802
        self, request: pb.ListMisclassifiedRequest, context: Context
    ) -> pb.ListMisclassifiedResponse:
        """Lists images that a checkpoint gets wrong."""
        del context
        page = self._page(request, request.page_size, request.page_token)
        selector = to_selector(request, request.WhichOneof("selector"))
        (checkpoint,) = await self._resolve(page.pinned or [selector])
        query = listing_query(request, checkpoint.model.started.class_names)
        listing = await self._threads.run(
            self._inspector.list_misclassified,
            checkpoint,
            query,
            offset=page.offset,
            limit=page.limit,
        )
        token = self._next_token(page, [checkpoint], len(listing.examples), listing.total)
        return listing_message(checkpoint, query, listing, token)

    async def GetConfusionMatrix(  # noqa: N802
        self, request: pb.GetConfusionMatrixRequest, context: Context
    ) -> pb.ConfusionMatrix:
        """Returns how often images of each class are taken for each class."""
        del context
        split = to_split(request.split)
        selector = to_selector(request, request.WhichOneof("selector"))
        checkpoint = await self._catalog.resolve(selector)
        confusion = await self._threads.run(self._inspector.confusion, checkpoint, split)
        return confusion_message(checkpoint, split, confusion)

    async def CompareModels(  # noqa: N802
        self, request: pb.CompareModelsRequest, context: Context
    ) -> pb.CompareModelsResponse:
        """Compares two checkpoints image by image."""
        del context
        page = self._page(request, request.page_size, request.page_token)
        selectors = [
            to_selector(one, one.WhichOneof("selector"), within=within)
            for one, within in ((request.baseline, "baseline."), (request.candidate, "candidate."))
        ]
        baseline, candidate = await self._resolve(page.pinned or selectors)
        check_same_images(baseline, candidate, "candidate")
        query = comparison_query(request, baseline.model.started.class_names)
        comparison = await self._threads.run(
            self._inspector.compare,
            baseline,
            candidate,
            query,
            offset=page.offset,
            limit=page.limit,
        )
        shown, total = len(comparison.examples), comparison.total
        token = self._next_token(page, [baseline, candidate], shown, total)
        return comparison_message(baseline, candidate, query, comparison, token)

    async def ListLikelyLabelErrors(  # noqa: N802
        self, request: pb.ListLikelyLabelErrorsRequest, context: Context
    ) -> pb.ListLikelyLabelErrorsResponse:
        """Lists images whose labels several checkpoints contradict."""
        del context
        page = self._page(request, request.page_size, request.page_token)
        named = page.pinned or named_models(request)
        if named:
            checkpoints = await self._resolve(named)
        else:
            variants = await self._catalog.best_of_variants(request.dataset)
            checkpoints = good_models(variants, request.dataset)
        check_models(checkpoints)
        query = label_error_query(request, checkpoints)
        found = await self._threads.run(
            self._inspector.label_errors, checkpoints, query, offset=page.offset, limit=page.limit
        )
        token = self._next_token(page, checkpoints, len(found.examples), found.total)
        return label_errors_message(checkpoints, query, found, token)

    def _page(self, request: Message, size: int, token: str) -> _Page:
        limit = page_size(size, default=_DEFAULT_PAGE_SIZE)
        of = query_of(request)
        *pinned, offset = self._tokens.read(of, token) or [0]
        # The later pages are of the epochs that the first was of.
        checkpoints = [ByName(job_id=job_id, epoch=epoch) for job_id, epoch in pinned]
        return _Page(of=of, pinned=checkpoints, offset=offset, limit=limit)

    async def _resolve(self, selectors: Sequence[Selector]) -> list[CheckpointRef]:
        return [await self._catalog.resolve(selector) for selector in selectors]

    def _next_token(
        self, page: _Page, checkpoints: Sequence[CheckpointRef], shown: int, total: int
    ) -> str:
        after = page.offset + shown
        if after >= total:
            return ""
        pinned = [[one.model.job.job_id, one.epoch.epoch] for one in checkpoints]
        return self._tokens.make(page.of, [*pinned, after])
