"""The inspection calls: what a model gets wrong."""

from collections.abc import AsyncIterator
from typing import Unpack

from leadline.client._async.connection import AsyncConnection
from leadline.client._inspection_requests import Listing, listing_request
from leadline.v1.inspection_service_pb2 import Example, ListMisclassifiedResponse


class AsyncInspectionCalls:
    """The part of the client that looks at what is wrong."""

    _connection: AsyncConnection

    async def misclassified(self, **asked: Unpack[Listing]) -> AsyncIterator[Example]:
        """Every image that a model gets wrong, over all pages.

        The arguments are those of `list_misclassified`.

        Raises:
            NotFoundError: there is no such model, epoch or variant.
            FailedPreconditionError: its images are no longer on the server, or
                its predictions of the split were not kept.
        """
        request = listing_request(**asked)
        while True:
            page = await self._connection.call(
                self._connection.stubs.inspection.ListMisclassified, request
            )
            for example in page.examples:
                yield example
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def list_misclassified(
        self, *, page_token: str = "", **asked: Unpack[Listing]
    ) -> ListMisclassifiedResponse:
        """One page of the images that a model gets wrong, with the counts of all.

        Args:
            page_token: `next_page_token` of the page before; empty: the first.
            **asked: what to list, by these names, all of which may be left out
                but for the model or the variant:
                model: a model, which means its best epoch, or one of its
                epochs; or the name of either.
                variant: instead: the best model of this variant.
                dataset: instead of `variant`: its parts.
                blocks: the variant's depth.
                batch_norm: whether the variant has batch norm; None: it has not.
                split: "test", the default, or "train".
                true_class: only images of the class of this name.
                predicted_class: only images that are taken for this class.
                min_probability: only images whose predicted class has at least
                this probability.
                max_probability: and at most this one.
                grouping: "predicted_class", the default, "true_class" or "none".
                order: within a group, "most_probable", the default,
                "least_probable", "index" or "random".
                seed: what a random order derives from.
                per_class: at most so many wrong ones a group, and as many right
                ones where they are included; None: all.
                include_correct: whether to list rightly classified images as
                well.
                image_format: "png", the default, "raw" for bytes, or "none".
                page_size: at most so many a page; 0: the server's choice.

        Raises:
            InvalidArgumentError: an argument is wrong, such as a class that the
                model does not have.
            NotFoundError: there is no such model, epoch or variant.
            FailedPreconditionError: its images are no longer on the server, or
                its predictions of the split were not kept.
        """
        request = listing_request(**asked)
        request.page_token = page_token
        return await self._connection.call(
            self._connection.stubs.inspection.ListMisclassified, request
        )
