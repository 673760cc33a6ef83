"""Health: is the auditor ready, and if not, why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from auditor.core.tally import Standing

_STALE = 10_000_000  # microseconds; a step is taken, and its batch written, every second


def readiness(vhosts: Sequence[str], standings: Iterable[Standing], now: int, lag: int) -> dict[str, Any]:
    """Return whether all these vhosts are read, the ledger is written and the watermarks move, with what is wrong.

    Ready means: connected, written to the ledger a short while ago, and the watermark no more than `lag` behind; times
    are microseconds.
    """
    known = {standing.vhost: standing for standing in standings}
    reasons = [
        {"vhost": vhost, "reason": reason} for vhost in vhosts for reason in _against(known.get(vhost), now, lag)
    ]
    return {"ready": not reasons, "reasons": reasons}


def _against(standing: Standing | None, now: int, lag: int) -> list[str]:
    if standing is None:
        return ["nothing was written to the ledger yet"]
    reasons = []
    if now - standing.updated_at > _STALE:
        reasons.append(f"nothing was written to the ledger for {(now - standing.updated_at) / 1e6:.0f} s")
    if not standing.connected:
        reasons.append("not connected to the broker")
    if standing.watermark is None:
        reasons.append("no canary has come back yet")
    elif now - standing.watermark > lag:
        reasons.append(f"the watermark is {(now - standing.watermark) / 1e6:.0f} s behind")
    if reasons and standing.problem:
        reasons.append(standing.problem)
    return reasons
