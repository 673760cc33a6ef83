"""The faults of the suite: what is planted, and what has to be claimed.

The rows of the table in docs/reliability.md, in their order. A test of the suite counts for one of them, see `fault` in
`tests.faults.tally`.
"""

from __future__ import annotations

FAULTS = {
    # applications: a loss is planted, and has to be found with the right state and the right reason
    "consumer stopped": "`stuck`, `no_consumer`; `late` once it returns",
    "no consumer": "`stuck`, `no_consumer`",
    "consumer hangs": "`stuck`, `waiting`: those behind the message it holds",
    "message expired": "`lost`, `queue_empty`; `dead_lettered`, `expired` once its dead letter is consumed",
    "queue full, oldest dropped": "`lost`, `queue_empty`; `dead_lettered`, `maxlen` once its dead letter is consumed",
    "queue full, publish refused": "`stuck` while the queue is full, then `lost`, `queue_empty`",
    "queue purged": "`lost`, `queue_empty`; `overtaken` where later messages are delivered",
    "queue deleted": "`lost`, `queue_missing`; nothing where it was empty",
    "rejected": "`dead_lettered`, `rejected`; nothing without a dead-letter exchange",
    "delivered too often": "`dead_lettered`, `delivery_limit`",
    "unroutable": "`unroutable`, `no_queue`; nothing where an alternate exchange takes it",
    "no such queue": "`lost`, `queue_missing`: the default exchange does not look",
    "fan-out, one queue not served": "`stuck`, `no_consumer`, for that queue alone",
    "delivered late": "`stuck`, then `late`",
    "message id reused": "the lost one of two: `lost`, `queue_empty`",
    "no message id, equal bodies": "the lost one of several: `lost`, `queue_empty`",
    "redelivered many times": "nothing; `lost` is claimed of its neighbour that really is",
    "priority queue": "`stuck`, `waiting`: what others overtook by priority is not called lost",
    "CC and BCC": "each queue for itself: `stuck`, `no_consumer`",
    "taken by an outsider": "`lost`, `queue_empty`: only the flow's own receiver counts",
    # applications: looks like a loss and is none, so nothing may be claimed
    "requeued": "nothing",
    "prefetched, not acknowledged": "nothing",
    "direct reply-to": "nothing",
    "stream read several times": "nothing",
    "held back on purpose": "nothing, by setting; `unknown`, `delayed`, as long as it is not delivered",
    "rolled back": "nothing, by setting: `unknown`, `transaction`; what is committed and not consumed: `stuck`",
    # what happens to the auditor, to its way to the broker, and to the broker; traffic goes on meanwhile
    "auditor stopped for a while": "nothing but what was planted meanwhile; no gap",
    "backlog worked off": "nothing but what was planted meanwhile; no gap",
    "connection cut": "nothing but what was planted; no gap",
    "connection black-holed": "nothing but what was planted; no gap",
    "connection slowed": "nothing but what was planted; no gap",
    "broker restarted": "nothing of what was in flight: `unknown`, in a gap",
    "firehose switched off": "nothing of what was in flight: `unknown`, in a gap",
    "firehose off for good": "nothing until it is on; says the command",
    "trace queue deleted": "nothing of what was in flight: `unknown`, in a gap",
    "trace queue purged": "nothing of what was in flight: `unknown`, in a gap",
    "trace queue overflowed": "nothing of what was in flight: `unknown`, in a gap",
    "trace queue unbound": "nothing of what was in flight: `unknown`, in a gap",
    "one of two nodes untraced": "nothing of what was in flight: `unknown`, in a gap; says which node",
    "one of two nodes away": "nothing of what was in flight: `unknown`, in a gap; what comes later is judged",
    "clock stepped": "nothing but what was planted; no gap",
    # the ledger: every event once, compared with what the applications counted
    "much traffic": "every event once",
    "auditor killed": "every event once",
    "auditor stopped in the middle": "every event once",
    "connections cut under load": "every event once",
    "broker restarted again and again": "every event at most once; what is missing lies in a gap",
    "auditor ended at a bad moment": "every event once; it ends within 10 seconds",
    "disk nearly full": "every event once: what does not fit stays in the broker",
    "disk full": "every event once",
    "ledger damaged": "nothing of what was in it, which is moved aside; a gap",
    "losses among much traffic": "each with its state and reason",
}
