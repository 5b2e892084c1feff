"""`leadline.v1.InspectionService`: convert, call, convert back."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import Message
from grpc import aio

from leadline.server.api.inspection_messages import (
    NextToken,
    from_comparison,
    from_confusion,
    from_label_errors,
    from_listing,
)
from leadline.server.api.inspection_queries import (
    to_comparison_query,
    to_label_error_query,
    to_listing_query,
    to_named_models,
    to_split,
)
from leadline.server.api.models import to_selector
from leadline.server.api.pages import EXAMPLES_PAGE_SIZE, PageTokens, page_size, query_of
from leadline.server.services.inspection import InspectionService
from leadline.server.serving.catalog import ByName, CheckpointRef
from leadline.v1 import inspection_service_pb2 as pb
from leadline.v1 import inspection_service_pb2_grpc

Context = aio.ServicerContext[Any, Any]


@dataclass(frozen=True, kw_only=True)
class _Page:
    """A page of examples.

    Attributes:
        query: the request without the fields of its page.
        pinned: the checkpoints of the first page, so that later pages show the
            same epochs; empty on the first page.
        offset: examples on the pages before.
        limit: the most examples on this one.
    """

    query: list[str]
    pinned: Sequence[ByName]
    offset: int
    limit: int


class InspectionServicer(inspection_service_pb2_grpc.InspectionServiceServicer):
    """Shows the mistakes of checkpoints."""

    def __init__(self, inspection: InspectionService, tokens: PageTokens) -> None:
        self._inspection = inspection
        self._tokens = tokens

    async def ListMisclassified(
        self, request: pb.ListMisclassifiedRequest, context: Context
    ) -> pb.ListMisclassifiedResponse:
        """Lists images that a checkpoint misclassifies."""
        page = self._page(request, request.page_size, request.page_token)
        selector = to_selector(request)
        checkpoint = await self._inspection.resolve(page.pinned[0] if page.pinned else selector)
        query = to_listing_query(request, checkpoint.model.started.class_names)
        return await self._inspection.list_misclassified(
            partial(from_listing, checkpoint, query, self._next_token(page, [checkpoint])),
            checkpoint,
            query,
            offset=page.offset,
            limit=page.limit,
            caller=context.peer(),
        )

    async def GetConfusionMatrix(
        self, request: pb.GetConfusionMatrixRequest, context: Context
    ) -> pb.ConfusionMatrix:
        """Returns how often images of each class are predicted as each class."""
        split = to_split(request.split)
        selector = to_selector(request)
        checkpoint = await self._inspection.resolve(selector)
        use = partial(from_confusion, checkpoint, split)
        return await self._inspection.confusion(use, checkpoint, split, caller=context.peer())

    async def CompareModels(
        self, request: pb.CompareModelsRequest, context: Context
    ) -> pb.CompareModelsResponse:
        """Compares two checkpoints image by image."""
        page = self._page(request, request.page_size, request.page_token)
        selectors = [
            to_selector(request.baseline, within="baseline."),
            to_selector(request.candidate, within="candidate."),
        ]
        pair = await self._inspection.resolve_pair(*(page.pinned or selectors))
        query = to_comparison_query(request, pair[0].model.started.class_names)
        return await self._inspection.compare(
            partial(from_comparison, *pair, query, self._next_token(page, pair)),
            *pair,
            query,
            offset=page.offset,
            limit=page.limit,
            caller=context.peer(),
        )

    async def ListLikelyLabelErrors(
        self, request: pb.ListLikelyLabelErrorsRequest, context: Context
    ) -> pb.ListLikelyLabelErrorsResponse:
        """Lists images whose labels several checkpoints contradict."""
        page = self._page(request, request.page_size, request.page_token)
        named = page.pinned or to_named_models(request)
        checkpoints = await self._inspection.resolve_jury(
            named, request.dataset, caller=context.peer()
        )
        class_names = checkpoints[0].model.started.class_names
        query = to_label_error_query(request, len(checkpoints), class_names)
        return await self._inspection.label_errors(
            partial(from_label_errors, checkpoints, query, self._next_token(page, checkpoints)),
            checkpoints,
            query,
            offset=page.offset,
            limit=page.limit,
            caller=context.peer(),
        )

    def _page(self, request: Message, size: int, token: str) -> _Page:
        limit = page_size(size, default=EXAMPLES_PAGE_SIZE)
        query = query_of(request)
        *pinned, offset = self._tokens.read(query, token) or [0]
        checkpoints = [ByName(job_id=job_id, epoch=epoch) for job_id, epoch in pinned]
        return _Page(query=query, pinned=checkpoints, offset=offset, limit=limit)

    def _next_token(self, page: _Page, checkpoints: Sequence[CheckpointRef]) -> NextToken:
        def token(shown: int, total: int) -> str:
            after = page.offset + shown
            if after >= total:
                return ""
            pinned = [
                [checkpoint.model.job.job_id, checkpoint.epoch.epoch] for checkpoint in checkpoints
            ]
            return self._tokens.issue(page.query, [*pinned, after])

        return token
