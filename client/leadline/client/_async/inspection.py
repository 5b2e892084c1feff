"""The inspection calls: the mistakes of models."""

from collections.abc import AsyncIterator
from typing import Unpack

from leadline.client._async.connection import AsyncConnection
from leadline.client._inspection_requests import (
    Comparing,
    LabelErrors,
    Listing,
    ModelOrVariant,
    SplitLike,
    comparison_request,
    label_errors_request,
    listing_request,
)
from leadline.client._requests import Selection, build, select
from leadline.v1.inspection_service_pb2 import (
    ComparedExample,
    CompareModelsResponse,
    ConfusionMatrix,
    Example,
    GetConfusionMatrixRequest,
    LikelyLabelError,
    ListLikelyLabelErrorsResponse,
    ListMisclassifiedResponse,
)


class AsyncInspectionCalls:
    """The part of the client that inspects wrong predictions."""

    _connection: AsyncConnection

    async def misclassified(self, **query: Unpack[Listing]) -> AsyncIterator[Example]:
        """Yields every image that a model misclassifies, over all pages.

        The arguments are those of `list_misclassified`.

        Raises:
            NotFoundError: the model, epoch or variant does not exist.
            FailedPreconditionError: its images are no longer on the server, or
                its predictions of the split were not kept.
        """
        request = listing_request(**query)
        async for page in self._connection.pages(
            self._connection.stubs.inspection.ListMisclassified, request
        ):
            for example in page.examples:
                yield example

    async def list_misclassified(
        self, *, page_token: str = "", **query: Unpack[Listing]
    ) -> ListMisclassifiedResponse:
        """One page of the images that a model misclassifies, with the total counts.

        Args:
            page_token: `next_page_token` of the previous page; empty for the first.
            **query: what to list; only the model or the variant is required:
                model: a model, which stands for its best epoch, or one of its
                epochs; or the name of either.
                variant: the best model of this variant, instead of `model`.
                dataset: the variant's dataset, instead of `variant`.
                blocks: the variant's depth.
                block_convolutions: the convolutions of each block; None for 1.
                batch_norm: whether the variant has batch norm; None for no.
                residual: whether it has residual connections; None for no.
                split: "test", the default, or "train".
                true_class: only images of the class with this name.
                predicted_class: only images predicted as this class.
                min_probability: only predictions with at least this probability.
                max_probability: only predictions with at most this probability.
                grouping: "predicted_class", the default, "true_class" or "none".
                order: the order within a group: "most_probable", the default,
                "least_probable", "index" or "random".
                seed: the seed of a random order.
                per_class: the most wrong images per group, and as many
                correct ones if they are included; None for all.
                include_correct: whether to list correctly classified images too.
                image_format: "png", the default, "raw" for bytes, or "none".
                page_size: the most images per page; 0 for the server's default.

        Raises:
            InvalidArgumentError: an argument is invalid, such as a class that the
                model does not have.
            NotFoundError: the model, epoch or variant does not exist.
            FailedPreconditionError: its images are no longer on the server, or
                its predictions of the split were not kept.
        """
        request = listing_request(**query)
        request.page_token = page_token
        return await self._connection.call(
            self._connection.stubs.inspection.ListMisclassified, request
        )

    async def confusion_matrix(
        self, *, split: SplitLike = "test", **selection: Unpack[Selection]
    ) -> ConfusionMatrix:
        """Counts how often a model predicts images of each class as each class.

        Args:
            split: "test" or "train".
            **selection: which model, as for `list_misclassified`: `model`, or
                `variant`, or `dataset`, `blocks`, `block_convolutions`,
                `batch_norm` and `residual`.

        Raises:
            NotFoundError: the model, epoch or variant does not exist.
            FailedPreconditionError: see `list_misclassified`.
        """
        request = select(build(GetConfusionMatrixRequest(), split=split), **selection)
        return await self._connection.call(
            self._connection.stubs.inspection.GetConfusionMatrix, request
        )

    async def compared_examples(
        self, baseline: ModelOrVariant, candidate: ModelOrVariant, **query: Unpack[Comparing]
    ) -> AsyncIterator[ComparedExample]:
        """Yields every image that at least one of two models misclassifies, over all pages.

        The arguments and the errors are those of `compare_models`.
        """
        request = comparison_request(baseline, candidate, **query)
        async for page in self._connection.pages(
            self._connection.stubs.inspection.CompareModels, request
        ):
            for example in page.examples:
                yield example

    async def compare_models(
        self,
        baseline: ModelOrVariant,
        candidate: ModelOrVariant,
        *,
        page_token: str = "",
        **query: Unpack[Comparing],
    ) -> CompareModelsResponse:
        """Compares a candidate with a baseline, and returns a page of examples.

        Args:
            baseline: a model, which stands for its best epoch, or one of its
                epochs, or the name of either; or a variant, which stands for
                its best model.
            candidate: as `baseline`, of the same dataset.
            page_token: `next_page_token` of the previous page; empty for the first.
            **query: which examples to show, all optional:
                split: "test", the default, or "train".
                outcome: only images that are "fixed", "broken" or "still_wrong".
                true_class: only images of the class with this name.
                image_format: "png", the default, "raw" for bytes, or "none".
                page_size: the most images per page; 0 for the server's default.

        Raises:
            InvalidArgumentError: an argument is invalid, or the two models were
                measured on different images.
            NotFoundError: the model, epoch or variant does not exist.
            FailedPreconditionError: see `list_misclassified`.
        """
        request = comparison_request(baseline, candidate, **query)
        request.page_token = page_token
        return await self._connection.call(self._connection.stubs.inspection.CompareModels, request)

    async def likely_label_errors(
        self, **query: Unpack[LabelErrors]
    ) -> AsyncIterator[LikelyLabelError]:
        """Yields every image whose label several models contradict, over all pages.

        The arguments and the errors are those of `list_likely_label_errors`.
        """
        request = label_errors_request(**query)
        async for page in self._connection.pages(
            self._connection.stubs.inspection.ListLikelyLabelErrors, request
        ):
            for example in page.examples:
                yield example

    async def list_likely_label_errors(
        self, *, page_token: str = "", **query: Unpack[LabelErrors]
    ) -> ListLikelyLabelErrorsResponse:
        """One page of the images whose label several models contradict, the surest first.

        Args:
            page_token: `next_page_token` of the previous page; empty for the first.
            **query: which labels to check:
                models: 2 to 20 models or epochs of one dataset, or their names.
                dataset: the best model of each good variant on this dataset,
                instead of `models`.
                split: "test", the default, or "train".
                min_models: how many must contradict a label; None for more than
                half of them, at least 2.
                true_class: only images labelled with the class of this name.
                image_format: "png", the default, "raw" for bytes, or "none".
                page_size: the most images per page; 0 for the server's default.

        Raises:
            InvalidArgumentError: an argument is invalid.
            NotFoundError: a model or epoch does not exist.
            FailedPreconditionError: fewer than two good variants are trained on
                the dataset; or see `list_misclassified`.
        """
        request = label_errors_request(**query)
        request.page_token = page_token
        return await self._connection.call(
            self._connection.stubs.inspection.ListLikelyLabelErrors, request
        )
