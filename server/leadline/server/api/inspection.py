"""`leadline.v1.InspectionService`."""

from typing import Any

from grpc import aio

from leadline.server.api.listings import listing_message, listing_query
from leadline.server.api.pages import PageTokens, page_size, query_of
from leadline.server.api.selectors import to_selector
from leadline.server.inspection.inspector import Inspector
from leadline.server.serving.catalog import ByName, Catalog
from leadline.server.threads import Threads
from leadline.v1 import inspection_service_pb2, inspection_service_pb2_grpc

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE_SIZE = 100


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
        """Lists images that a checkpoint gets wrong."""
        del context
        size = page_size(request.page_size, default=_DEFAULT_PAGE_SIZE)
        selector = to_selector(request, request.WhichOneof("selector"))
        token_query = query_of(request)
        position = self._tokens.read(token_query, request.page_token)
        offset = 0
        if position:
            # The later pages are of the epoch that the first was of.
            job_id, epoch, offset = position
            selector = ByName(job_id=job_id, epoch=epoch)
        checkpoint = await self._catalog.resolve(selector)
        query = listing_query(request, checkpoint.model.started.class_names)
        listing = await self._threads.run(
            self._inspector.list_misclassified, checkpoint, query, offset=offset, limit=size
        )
        after = offset + len(listing.examples)
        token = ""
        if after < listing.total:
            position = [checkpoint.model.job.job_id, checkpoint.epoch.epoch, after]
            token = self._tokens.make(token_query, position)
        return listing_message(checkpoint, query, listing, token)
