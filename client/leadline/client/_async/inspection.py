"""The inspection calls: what a model gets wrong."""

from collections.abc import AsyncIterator

from leadline.client._async.connection import AsyncConnection
from leadline.client._requests import GroupingLike, build, grouping_value, select
from leadline.v1.inspection_service_pb2 import (
    GROUPING_UNSPECIFIED,
    Example,
    ListMisclassifiedRequest,
    ListMisclassifiedResponse,
)
from leadline.v1.model_pb2 import Variant


class AsyncInspectionCalls:
    """The part of the client that looks at what is wrong."""

    _connection: AsyncConnection

    async def misclassified(
        self,
        *,
        model: str | None = None,
        variant: Variant | None = None,
        dataset: str | None = None,
        blocks: int | None = None,
        batch_norm: bool | None = None,
        per_class: int | None = None,
        grouping: GroupingLike = GROUPING_UNSPECIFIED,
        include_correct: bool = False,
        page_size: int = 0,
    ) -> AsyncIterator[Example]:
        """Every test image that a model gets wrong, class by class, over all pages.

        The arguments are those of `list_misclassified`.

        Raises:
            NotFoundError: there is no such model, epoch or variant.
            FailedPreconditionError: its test images are no longer on the server.
        """
        token = ""
        while True:
            page = await self.list_misclassified(
                model=model,
                variant=variant,
                dataset=dataset,
                blocks=blocks,
                batch_norm=batch_norm,
                per_class=per_class,
                grouping=grouping,
                include_correct=include_correct,
                page_size=page_size,
                page_token=token,
            )
            for example in page.examples:
                yield example
            token = page.next_page_token
            if not token:
                return

    async def list_misclassified(
        self,
        *,
        model: str | None = None,
        variant: Variant | None = None,
        dataset: str | None = None,
        blocks: int | None = None,
        batch_norm: bool | None = None,
        per_class: int | None = None,
        grouping: GroupingLike = GROUPING_UNSPECIFIED,
        include_correct: bool = False,
        page_size: int = 0,
        page_token: str = "",
    ) -> ListMisclassifiedResponse:
        """One page of the test images that a model gets wrong, with the counts of all.

        Args:
            model: the name of a model, which means its best epoch, or of one
                of its epochs.
            variant: instead: the best model of this variant.
            dataset: instead of `variant`: its parts.
            blocks: the variant's depth.
            batch_norm: whether the variant has batch norm; None: it has not.
            per_class: at most so many wrong ones a class, and as many right
                ones where they are included; None: all.
            grouping: "predicted_class", the default, or "true_class".
            include_correct: whether to list rightly classified images as well.
            page_size: at most so many a page; 0: the server's choice.
            page_token: `next_page_token` of the page before; empty: the first.

        Raises:
            NotFoundError: there is no such model, epoch or variant.
            FailedPreconditionError: its test images are no longer on the server.
        """
        request = build(
            ListMisclassifiedRequest(),
            per_class=per_class,
            grouping=grouping_value(grouping),
            include_correct=include_correct,
            page_size=page_size,
            page_token=page_token,
        )
        select(
            request,
            model=model,
            variant=variant,
            dataset=dataset,
            blocks=blocks,
            batch_norm=batch_norm,
        )
        return await self._connection.call(
            self._connection.stubs.inspection.ListMisclassified, request
        )
