"""The inspection calls: what a model gets wrong."""

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
        """Every image that a model gets wrong, over all pages.

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
        """One page of the images that a model gets wrong, with the counts of all.

        Args:
            page_token: `next_page_token` of the page before; empty: the first.
            **query: what to list; only the model or the variant is required:
                model: a model, which stands for its best epoch, or one of its
                epochs; or the name of either.
                variant: instead: the best model of this variant.
                dataset: instead of `variant`: its parts.
                blocks: the variant's depth.
                block_convolutions: the convolutions of each block, 1 or 2; None: 1.
                batch_norm: whether the variant has batch norm; None: no.
                residual: whether it has residual connections, likewise.
                split: "test", the default, or "train".
                true_class: only images of the class of this name.
                predicted_class: only images predicted as this class.
                min_probability: only predictions with at least this probability.
                max_probability: and at most this one.
                grouping: "predicted_class", the default, "true_class" or "none".
                order: within a group, "most_probable", the default,
                "least_probable", "index" or "random".
                seed: of a random order.
                per_class: the most wrong images per group, and as many
                correct ones if they are included; None: all.
                include_correct: whether to list correctly classified images too.
                image_format: "png", the default, "raw" for bytes, or "none".
                page_size: the most per page; 0: the server's choice.

        Raises:
            InvalidArgumentError: an argument is wrong, such as a class that the
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
        """How often a model predicts images of each class as each class.

        Args:
            split: "test" or "train".
            **selection: which model, as for `list_misclassified`: `model`, or
                `variant`, or `dataset`, `blocks`, `block_convolutions`,
                `batch_norm` and `residual`.

        Raises:
            NotFoundError: the model, epoch or variant does not exist.
            FailedPreconditionError: as of `list_misclassified`.
        """
        request = select(build(GetConfusionMatrixRequest(), split=split), **selection)
        return await self._connection.call(
            self._connection.stubs.inspection.GetConfusionMatrix, request
        )

    async def compared_examples(
        self, baseline: ModelOrVariant, candidate: ModelOrVariant, **query: Unpack[Comparing]
    ) -> AsyncIterator[ComparedExample]:
        """Every image that at least one of two models gets wrong, over all pages.

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
        """What a candidate has fixed and broken, compared with a baseline, and a page of examples.

        Args:
            baseline: a model, which stands for its best epoch, or one of its
                epochs, or the name of either; or a variant, which stands for
                its best model.
            candidate: likewise, of the same dataset.
            page_token: `next_page_token` of the page before; empty: the first.
            **query: which examples to show, all optional:
                split: "test", the default, or "train".
                outcome: only "fixed", "broken" or "still_wrong" ones.
                true_class: only images of the class of this name.
                image_format: "png", the default, "raw" for bytes, or "none".
                page_size: the most per page; 0: the server's choice.

        Raises:
            InvalidArgumentError: an argument is wrong, or the two were measured
                on different images.
            NotFoundError: the model, epoch or variant does not exist.
            FailedPreconditionError: as of `list_misclassified`.
        """
        request = comparison_request(baseline, candidate, **query)
        request.page_token = page_token
        return await self._connection.call(self._connection.stubs.inspection.CompareModels, request)

    async def likely_label_errors(
        self, **query: Unpack[LabelErrors]
    ) -> AsyncIterator[LikelyLabelError]:
        """Every image whose label several models contradict, over all pages.

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
            page_token: `next_page_token` of the page before; empty: the first.
            **query: which labels to check:
                models: the models, or some of their epochs, or the names of
                these; 2 to 20 of one dataset.
                dataset: instead: the best model of each good variant on this
                dataset.
                split: "test", the default, or "train".
                min_models: how many must contradict a label; None: more than
                half of them, at least 2.
                true_class: only images labelled with the class of this name.
                image_format: "png", the default, "raw" for bytes, or "none".
                page_size: the most per page; 0: the server's choice.

        Raises:
            InvalidArgumentError: an argument is wrong.
            NotFoundError: a model or epoch does not exist.
            FailedPreconditionError: fewer than two good variants are trained on
                the dataset; or as of `list_misclassified`.
        """
        request = label_errors_request(**query)
        request.page_token = page_token
        return await self._connection.call(
            self._connection.stubs.inspection.ListLikelyLabelErrors, request
        )
