"""Measures epochs in this process with different numbers of threads, alternating."""

import time
from collections.abc import Sequence

import torch

from harness.arithmetic import attainable_operations, epoch_operations
from harness.stats import Spread
from harness.tables import table
from leadline.models.datasets import Dataset
from leadline.models.spec import TrainingSpec
from leadline.models.training import Trainer

_CPU = torch.device("cpu")


def report_threads(
    dataset: Dataset, spec: TrainingSpec, threads: Sequence[int], rounds: int
) -> str:
    """Trains an epoch with each number of threads in each round, after one that does not count.

    The share of the attainable arithmetic counts CPU time, so it holds on a busy machine, too. The
    speed over the first number of threads needs an idle one.
    """
    trainers = [Trainer(spec, dataset, device=_CPU, threads=number) for number in threads]
    seconds: list[list[float]] = [[] for _ in trainers]
    cpu: list[list[float]] = [[] for _ in trainers]
    for epoch in range(1, rounds + 2):
        for number, trainer in enumerate(trainers):
            started, used = time.perf_counter(), time.process_time()
            trainer.train_epoch(epoch)
            if epoch > 1:
                seconds[number].append(time.perf_counter() - started)
                cpu[number].append(time.process_time() - used)
    work = epoch_operations(
        trainers[0].architecture,
        train_images=len(dataset.train.labels),
        test_images=len(dataset.test.labels),
    )
    attainable = attainable_operations(_CPU)  # the trainers have set torch to one thread
    heads = ("threads", "s an epoch", "CPU s", "of the arithmetic", f"over {threads[0]} threads")
    rows = [
        [
            str(count),
            Spread.of(own).text(2),
            Spread.of(used).text(2),
            f"{work / Spread.of(used).median / attainable:.1%}",
            Spread.of_ratios(seconds[0], own).text(2),
        ]
        for count, own, used in zip(threads, seconds, cpu, strict=True)
    ]
    return (
        f"{table(heads, rows)}\n{spec.blocks} blocks of {spec.block_convolutions} convolutions, "
        f"{attainable / 1e9:,.0f} x 10^9 operations a second attainable with one thread\n"
    )
