"""Checks that all engines agree with exact results."""

from leadline.server.doctor.check import Check, Status
from leadline.server.doctor.child import Outcome, run_module

SECONDS = 300.0
"""The time limit per device, which includes loading torch and compiling kernels."""

TOLERANCES = {"gradients": 1e-4, "logits": 1e-5}
"""The largest relative difference from float64. Rounding in float32 causes about 1e-6;
TensorFloat-32, whose products have 10 bits, about 1e-3."""


def compute_on(device: str) -> Outcome:
    """Computes the small networks on "cpu" or a GPU, in a separate process."""
    return run_module("agreement", device, seconds=SECONDS)


def check_agreement(device: str, outcome: Outcome) -> Check:
    """Judges the outcome of `compute_on`."""
    results = [line for line in outcome.lines if "difference" in line]
    # NaN exceeds every tolerance.
    beyond = [line for line in results if not line["difference"] <= TOLERANCES[line["quantity"]]]
    detail = {"tolerances": TOLERANCES, "differences": results}
    name = f"agreement {device}"
    if beyond:
        value = "; ".join(
            f"{line['way']} {line['network']}: {line['quantity']} off by {line['difference']:.1e}"
            for line in beyond
        )
        advice = "do not train here: the device or a library computes wrongly"
        return Check(name, Status.FAILED, value, detail=detail, advice=advice)
    if outcome.error is not None or not results:
        advice = "jobs and predictions on this device would fail in the same way"
        return Check(name, Status.FAILED, outcome.error or "no result", detail, advice)
    ways = ", ".join(dict.fromkeys(line["way"] for line in results))
    worst = {
        quantity: max(line["difference"] for line in results if line["quantity"] == quantity)
        for quantity in TOLERANCES
    }
    shown = ", ".join(f"{name} {value:.0e}" for name, value in worst.items())
    return Check(name, Status.OK, f"{ways} agree with float64: {shown}", detail=detail)
