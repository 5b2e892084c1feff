from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from leadline.server.telemetry.histograms import HistogramCollector, UnlockedHistogram

_BOUNDS = (0.1, 0.5, 1, 4)


@given(st.lists(st.one_of(st.sampled_from(_BOUNDS), st.floats(0, 10, width=16)), max_size=30))
def test_a_histogram_is_exposed_as_a_histogram_of_prometheus_is(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = UnlockedHistogram(_BOUNDS)
    ours.register(HistogramCollector("seconds", "Some.", histogram))
    expected_histogram = Histogram("seconds", "Some.", buckets=_BOUNDS, registry=theirs)

    for value in values:
        histogram.observe(value)
        expected_histogram.observe(value)

    created = b"seconds_created"
    expected = [line for line in generate_latest(theirs).splitlines() if created not in line]
    assert generate_latest(ours).splitlines() == expected
