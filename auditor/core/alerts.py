"""Alerts: what is wrong, derived from what the ledger holds, and when it began and ended.

`causes` says what is wrong now. The `Board` compares that with what was wrong before, and so knows what begins and what
ends. Neither sends anything.

An alert is a group: all hops of one flow to one queue with one reason are one alert, however many there are. Its labels
are its identity; everything that changes is an annotation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from auditor.core.gaps import GapReason
from auditor.core.hops import State
from auditor.core.tally import OTHER

MAX_QUEUES = 20
"""Alerts of one flow and state, each for a queue; further queues share one. More would be a flood."""

RESOLVED_FOR = 15 * 60_000_000
"""Microseconds for which an alert that has ended is told, as Prometheus does."""

WATCHDOG = "AuditorWatchdog"
"""The alert that always fires, so that its absence is noticed."""

_HOLD = 3_000_000  # microseconds that the auditor must be blind before it is said: it may just be connecting again
_STALE = 10_000_000  # microseconds without a step, which is otherwise taken every second

Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted by name."""


class Against(NamedTuple):
    """The hops of a flow to a queue with one verdict against them that nobody has acknowledged."""

    vhost: str
    flow: str
    queue: str
    state: str
    reason: str
    hops: int
    oldest_at: int  # published
    newest: int  # message


class InStage(NamedTuple):
    """The orders in a stage."""

    vhost: str
    stage: str
    system: str
    orders: int
    oldest_at: int
    stuck: int  # too long in it
    to_tell: int  # of these, not acknowledged and not forgotten
    to_tell_oldest_at: int | None


class GapSpan(NamedTuple):
    """A span of time that was not audited."""

    vhost: str
    reason: str
    from_at: int | None
    to_at: int | None


class Vhost(NamedTuple):
    """How the audit of a vhost stands."""

    name: str
    connected: bool
    watermark: int | None
    updated_at: int
    problem: str | None


class Exports(NamedTuple):
    """What came of exporting spans since the ledger began, and what waits to be exported."""

    spans: int = 0  # taken by the receiver
    refused: int = 0  # spans that it did not take, and never will
    dropped: int = 0  # things given up before they became spans
    invalid_contexts: int = 0  # messages whose trace context could not be used
    waiting: int = 0  # things in the outbox
    oldest_at: int | None = None  # when the oldest message among them was published; None: nothing waits


class Survey(NamedTuple):
    """What the ledger holds that somebody might have to hear of."""

    against: Sequence[Against] = ()
    stages: Sequence[InStage] = ()
    gaps: Sequence[GapSpan] = ()
    vhosts: Sequence[Vhost] = ()
    gap_seconds: Sequence[tuple[str, float]] = ()  # by vhost, since the ledger began
    exports: Exports = Exports()
    size: int = 0  # bytes of the ledger on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long what may last; microseconds."""

    lag: int
    gap: int


class Cause(NamedTuple):
    """Something that is wrong now."""

    labels: Labels
    summary: str
    description: str
    number: int = 1  # of messages, orders, spans of time
    oldest_at: int | None = None
    hold: int = 0  # microseconds that it must last before it is told

    @property
    def name(self) -> str:
        """The alert's name."""
        return dict(self.labels)["alertname"]


class Alert(NamedTuple):
    """A cause that is told."""

    labels: Labels
    starts_at: int
    ended_at: int | None  # None: it is firing
    number: int
    annotations: dict[str, str]

    @property
    def name(self) -> str:
        """The alert's name."""
        return dict(self.labels)["alertname"]


def causes(survey: Survey, now: int, patience: Patience, firing: Collection[Labels] = ()) -> list[Cause]:
    """Return what is wrong; `firing` are alerts that were told before: their queues keep their own."""
    found = [_watchdog()]
    found += map(_of_hops, _folded(survey.against, firing))
    found += [_stuck(stage) for stage in survey.stages if stage.to_tell]
    for vhost in survey.vhosts:
        lasting = next((gap for gap in survey.gaps if gap.vhost == vhost.name and gap.to_at is None), None)
        lag = None if vhost.watermark is None else now - vhost.watermark
        late = lag is not None and lag > patience.lag
        if lasting is not None or not vhost.connected or now - vhost.updated_at > _STALE:
            found.append(_blind(vhost, lasting))
        elif late:
            found.append(_lagging(vhost))
    found += _gaps(survey.gaps, now - patience.gap)
    return found


def labels(**values: str) -> Labels:
    """Return labels; empty ones are left out, as Alertmanager does itself."""
    return tuple(sorted((name, value) for name, value in values.items() if value))


def _watchdog() -> Cause:
    return Cause(
        labels(alertname=WATCHDOG, severity="none"),
        "The auditor is alive",
        "This alert always fires. When it is missing, no other alert of the auditor can be relied on.",
    )


_OF_STATE = {
    State.STUCK: ("MessageUndelivered", "warning", "waiting in its queue past the deadline"),
    State.LOST: ("MessageUndelivered", "critical", "no longer in its queue and never delivered"),
    State.DEAD_LETTERED: ("MessageDeadLettered", "warning", "moved to a dead-letter queue by the broker"),
    State.UNROUTABLE: ("MessageUnroutable", "critical", "routed to no queue by the broker"),
}


def _of_hops(group: Against) -> Cause:
    name, severity, claim = _OF_STATE[State(group.state)]
    where = f" to queue {group.queue}" if group.queue else ""
    return Cause(
        labels(
            alertname=name,
            severity=severity,
            vhost=group.vhost,
            flow=group.flow,
            queue=group.queue,
            reason=group.reason,
        ),
        f"{_many(group.hops, 'message')} of {group.flow}{where}: {claim}",
        f"The claim rests on the reason {group.reason}. It ends when the message is delivered after all, or with"
        " `auditor ack`.",
        group.hops,
        group.oldest_at,
    )


def _folded(groups: Sequence[Against], firing: Collection[Labels]) -> list[Against]:
    """Give each flow and state so many queues, those first that have an alert already; the others become one."""
    queues: dict[tuple[str, str, str], set[str]] = {}
    own: list[Against] = []
    shared: dict[tuple[str, ...], Against] = {}
    for group in sorted(groups, key=lambda one: (_of_hops(one).labels not in firing, one.oldest_at, one.queue)):
        among = queues.setdefault((group.vhost, group.flow, group.state), set())
        if group.queue in among or len(among) < MAX_QUEUES:
            among.add(group.queue)
            own.append(group)
            continue
        group = group._replace(queue=OTHER)
        key = (group.vhost, group.flow, group.state, group.reason)
        first = shared.get(key)
        shared[key] = (
            group
            if first is None
            else first._replace(hops=first.hops + group.hops, newest=max(first.newest, group.newest))
        )
    return [*own, *shared.values()]


def _stuck(stage: InStage) -> Cause:
    system = f" ({stage.system})" if stage.system else ""
    return Cause(
        labels(alertname="OrderStuck", severity="warning", vhost=stage.vhost, stage=stage.stage, system=stage.system),
        f"{_many(stage.to_tell, 'order')} too long in stage {stage.stage}{system}",
        "No message has announced a later stage within the stage's deadline. `auditor orders --stuck` lists them.",
        stage.to_tell,
        stage.to_tell_oldest_at,
    )


def _blind(vhost: Vhost, gap: GapSpan | None) -> Cause:
    why = vhost.problem or (f"gap: {gap.reason}" if gap is not None else "no step is taken")
    return Cause(
        labels(alertname="AuditorBlind", severity="critical", vhost=vhost.name),
        f"The auditor does not see what happens on vhost {vhost.name}",
        f"Nothing is claimed of messages that are in flight meanwhile. {why}",
        oldest_at=None if gap is None else gap.from_at,
        hold=_HOLD,
    )


def _lagging(vhost: Vhost) -> Cause:
    return Cause(
        labels(alertname="AuditorLagging", severity="warning", vhost=vhost.name),
        f"The auditor is behind on vhost {vhost.name}",
        f"Verdicts wait until it has caught up. {vhost.problem or ''}".rstrip(),
        oldest_at=vhost.watermark,
    )


def _gaps(gaps: Sequence[GapSpan], since: int) -> list[Cause]:
    ended: dict[tuple[str, str], list[GapSpan]] = {}
    for gap in gaps:
        # before its first start the auditor is not expected to have seen anything
        if gap.to_at is not None and gap.to_at >= since and gap.reason != GapReason.FIRST_START:
            ended.setdefault((gap.vhost, gap.reason), []).append(gap)
    return [
        Cause(
            labels(alertname="AuditorGap", severity="warning", vhost=vhost, reason=reason),
            f"{_many(len(spans), 'span')} of time on vhost {vhost} not audited: {reason}",
            "Messages that were in flight then may be unknown. `auditor coverage` lists the spans.",
            len(spans),
            min((span.from_at for span in spans if span.from_at is not None), default=None),
        )
        for (vhost, reason), spans in ended.items()
    ]


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


class News(NamedTuple):
    """What an update of the board has changed."""

    began: list[Alert]
    ended: list[Alert]
    forgotten: list[Labels]

    def __bool__(self) -> bool:
        return bool(self.began or self.ended or self.forgotten)


class Board:
    """The alerts that are told: those that fire, and those that ended a short while ago."""

    def __init__(self, stored: Iterable[Alert] = ()) -> None:
        """Go on with what the ledger has kept: an alert that still has its cause has the beginning that it had."""
        self._alerts = {alert.labels: alert for alert in stored}
        self._pending: dict[Labels, int] = {}  # since when a cause lasts that has to be held

    @property
    def alerts(self) -> list[Alert]:
        """All of them."""
        return list(self._alerts.values())

    @property
    def firing(self) -> set[Labels]:
        """The labels of those that fire."""
        return {alert.labels for alert in self._alerts.values() if alert.ended_at is None}

    def update(self, found: Iterable[Cause], now: int, annotate: Callable[[Cause], dict[str, str]]) -> News:
        """Take in what is wrong now; `annotate` gives a cause's annotations."""
        news = News([], [], [])
        present: set[Labels] = set()
        for cause in found:
            present.add(cause.labels)
            alert = self._alerts.get(cause.labels)
            if alert is not None and alert.ended_at is None:
                if alert.number != cause.number or alert.name == "AuditorBlind":
                    self._alerts[cause.labels] = alert._replace(number=cause.number, annotations=annotate(cause))
            elif now - self._pending.setdefault(cause.labels, now) >= cause.hold:
                began = Alert(cause.labels, now, None, cause.number, annotate(cause))
                self._alerts[cause.labels] = began
                news.began.append(began)
        self._pending = {label: since for label, since in self._pending.items() if label in present}
        for alert in self.alerts:
            if alert.ended_at is None:
                if alert.labels not in present:
                    ended = self._alerts[alert.labels] = alert._replace(ended_at=now)
                    news.ended.append(ended)
            elif now - alert.ended_at > RESOLVED_FOR:
                del self._alerts[alert.labels]
                news.forgotten.append(alert.labels)
        return news
