"""The parser of h2load's output, and the checks of what h2load does not see."""

import numpy as np
import pytest

from harness.checks import Counts, WrongAnswerError, check_load
from harness.h2load import Load, LoadError, LoadResult, frame, parse
from harness.servers import total

ONE = Load(in_flight=1, connections=1, seconds=3)

SUMMARY = """\
starting benchmark...
Main benchmark duration is over for thread #0. Stopping all clients.
finished in 3.00s, 2.00 req/s, 1.00KB/s
requests: 6 total, 8 started, 6 done, 6 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 6 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.20KB (1234) total, 300B (300) headers (space savings 90.00%), 640B (640) data
                     min         max         mean         sd        +/- sd
time for request:      250us      1.50ms       700us       100us    60.00%
"""
LOG = "".join(
    f"{1_700_000_000_000_000 + number}\t200\t{microseconds}\n"
    for number, microseconds in enumerate((250, 500, 500, 750, 1000, 1500))
)


def result(*, succeeded: int = 6, failed: int = 0, data_bytes: int = 640) -> LoadResult:
    return LoadResult(
        succeeded=succeeded,
        failed=failed,
        data_bytes=data_bytes,
        seconds=3,
        latencies=np.ones(succeeded),
    )


LOAD = Load(in_flight=2, connections=1, seconds=3)


def test_a_run_is_read_from_its_summary_and_its_log() -> None:
    found = parse(SUMMARY, LOG, ONE)

    assert (found.succeeded, found.failed, found.data_bytes) == (6, 0, 640)
    assert found.per_second == 2
    assert (found.latency(50), found.latency(99)) == (0.5, 1.5)


def test_what_failed_is_counted_and_has_no_latency() -> None:
    summary = SUMMARY.replace(
        "6 succeeded, 0 failed, 0 errored", "4 succeeded, 1 failed, 1 errored"
    )
    log = LOG.replace("\t200\t1500", "\t-1\t1500").replace("\t200\t1000", "\t503\t1000")

    found = parse(summary, log, ONE)

    assert (found.succeeded, found.failed, found.latency(100)) == (4, 2, 0.75)


def test_what_was_in_flight_when_it_began_to_count_may_be_in_one_count_alone() -> None:
    assert parse(SUMMARY, LOG + "1\t200\t100\n", ONE).succeeded == 6


@pytest.mark.parametrize(
    ("summary", "log", "why"),
    [
        ("", LOG, "unknown summary"),
        (SUMMARY, LOG + 2 * "1\t200\t100\n", "counts 6 answers, but logs 8"),
        (SUMMARY, "1\t200\n", "without three numbers"),
        (SUMMARY, "1\t200\tsoon\n", "without three numbers"),
    ],
)
def test_output_that_makes_no_sense_is_no_measurement(summary: str, log: str, why: str) -> None:
    with pytest.raises(LoadError, match=why):
        parse(summary, log, ONE)


def test_a_message_is_framed_as_grpc_has_it() -> None:
    assert frame(b"abc") == b"\0\0\0\0\3abc"


def test_requests_are_spread_evenly_over_connections() -> None:
    with pytest.raises(LoadError, match="evenly"):
        Load(in_flight=10, connections=4, seconds=1)


def test_counts_that_agree_pass() -> None:
    # 8 answers of 75 framed bytes: 6 measured and 2 of the warm-up.
    check_load(LOAD, result(), counted=Counts(8, 2), answer_bytes=75)


@pytest.mark.parametrize(
    ("found", "counted", "why"),
    [
        (result(failed=1), Counts(8, 0), "not answered with HTTP"),
        (result(succeeded=0), Counts(8, 0), "nothing was answered"),
        (result(), Counts(5, 0), "ended 5 calls with OK"),
        (result(), Counts(8, 3), "ended 3 calls with an error"),
        # All have HTTP status 200, but errors have no message.
        (result(data_bytes=400), Counts(8, 0), "5.0 answers of 80 bytes"),
        (result(data_bytes=880), Counts(8, 0), "11.0 answers of 80 bytes"),
    ],
)
def test_counts_that_disagree_are_no_measurement(
    found: LoadResult, counted: Counts, why: str
) -> None:
    with pytest.raises(WrongAnswerError, match=why):
        check_load(LOAD, found, counted=counted, answer_bytes=75)


def test_a_metric_is_summed_over_the_series_that_have_the_labels() -> None:
    metrics = (
        "# TYPE calls_total counter\n"
        'calls_total{method="ModelInfer",code="OK"} 7.0\n'
        'calls_total{method="ModelInfer",code="Internal"} 2.0\n'
        'calls_total{method="Predict",code="OK"} 30.0\n'
        "in_flight 3\n"
    )

    assert total(metrics, "calls_total", method="ModelInfer") == 9
    assert total(metrics, "calls_total", method="ModelInfer", code="OK") == 7
    assert total(metrics, "in_flight") == 3
    assert total(metrics, "calls") == 0
