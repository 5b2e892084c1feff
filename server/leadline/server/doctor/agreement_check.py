"""Whether all ways to compute a network agree: the finding."""

from leadline.server.doctor.check import Check, Status
from leadline.server.doctor.child import Outcome, run_module

SECONDS = 300.0
"""How long a device has: torch is loaded, and machine code made."""

TOLERANCES = {"gradients": 1e-4, "logits": 1e-5}
"""The largest distance from float64, as a share of its length. The rounding of
float32 comes to some 1e-6; TensorFloat-32, whose products have 10 bits, to some 1e-3."""


def compute_on(device: str) -> Outcome:
    """Computes the small networks on "cpu" or a GPU, in a process of its own."""
    return run_module("agreement", device, seconds=SECONDS)


def check_agreement(device: str, outcome: Outcome) -> Check:
    """Judges what `compute_on` has found."""
    found = [line for line in outcome.lines if "difference" in line]
    # Not a number is beyond every tolerance.
    beyond = [one for one in found if not one["difference"] <= TOLERANCES[one["quantity"]]]
    detail = {"tolerances": TOLERANCES, "differences": found}
    name = f"agreement {device}"
    if beyond:
        value = "; ".join(
            f"{one['way']} {one['network']}: {one['quantity']} off by {one['difference']:.1e}"
            for one in beyond
        )
        advice = "do not train here: the device or a library computes wrongly"
        return Check(name=name, status=Status.FAILED, value=value, detail=detail, advice=advice)
    if outcome.error is not None or not found:
        return Check(
            name=name,
            status=Status.FAILED,
            value=outcome.error or "no result",
            detail=detail,
            advice="jobs and predictions on this device would fail in the same way",
        )
    ways = ", ".join(dict.fromkeys(one["way"] for one in found))
    worst = {
        quantity: max(one["difference"] for one in found if one["quantity"] == quantity)
        for quantity in TOLERANCES
    }
    shown = ", ".join(f"{name} {value:.0e}" for name, value in worst.items())
    return Check(
        name=name,
        status=Status.OK,
        value=f"{ways} agree with float64: {shown}",
        detail=detail,
    )
