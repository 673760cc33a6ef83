"""From the settings to the flows and stages that the core knows, and to the trace keys that they need."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from functools import partial

from pydantic_core import from_json

from auditor.core.extract import Extract, extractor
from auditor.core.flows import Flow, FlowTable
from auditor.core.stages import Stage, StageTable
from auditor.presets import PRESETS
from auditor.settings import FlowSettings, Settings, microseconds
from auditor.sources import compile_sources

EVERYTHING = FlowSettings(name="all")
"""The flow of settings that have none: every message, 60 s, generic extraction."""

parse_json = partial(from_json, allow_inf_nan=False, cache_strings="keys")
"""A parser that comes with pydantic: it differs from the library's in nothing but its speed, and what it refuses."""

_WILD = re.compile(r"[*?\[]")
_LONGEST_KEY = 255  # bytes of a routing key


def flow_table(settings: Settings) -> FlowTable:
    """Make the flows of the settings."""
    return FlowTable(_flow(flow) for flow in settings.flows or [EVERYTHING])


def stage_table(settings: Settings) -> StageTable:
    """Make the stages of the settings."""
    return StageTable(
        Stage(stage.name, stage.system, None if stage.deadline is None else microseconds(stage.deadline))
        for stage in settings.stages
    )


def binding_keys(settings: Settings) -> list[str]:
    """Give the routing keys by which the trace queue gets what the flows need, and no more where names are plain.

    Exact keys for publishes if every flow names its exchanges without patterns, and for deliveries if it so names its
    queues and dead-letter queues; a dead-lettered message is known by its delivery from there. "#" alone when neither
    can be narrowed.
    """
    flows = settings.flows or [EVERYTHING]
    if settings.tap.bind == "all":
        return ["#"]
    publishes = _keys("publish", [flow.exchanges for flow in flows])
    delivers = _keys("deliver", [names for flow in flows for names in (flow.queues, flow.dead_letter_queues)])
    if publishes is None and delivers is None:
        return ["#"]
    return [*(["publish.#"] if publishes is None else publishes), *(["deliver.#"] if delivers is None else delivers)]


def _keys(kind: str, lists: Iterable[Sequence[str]]) -> list[str] | None:
    """Give one exact key for each name; None when a list is open or a name cannot stand in a binding key."""
    keys: set[str] = set()
    for names in lists:
        if not names:
            return None
        for name in names:
            key = f"{kind}.{name}"
            # "#" as a word would match any words ("*" is wild already)
            if _WILD.search(name) or "#" in name.split(".") or len(key.encode()) > _LONGEST_KEY:
                return None
            keys.add(key)
    return sorted(keys)


def _flow(flow: FlowSettings) -> Flow:
    left, arrow, right = flow.name.partition("->")
    exchange, sender_user, sender_connection = map(
        _matcher, (flow.exchanges, flow.sender_users, flow.sender_connections)
    )
    receiver_user, receiver_connection = map(_matcher, (flow.receiver_users, flow.receiver_connections))
    return Flow(
        name=flow.name,
        sender=flow.sender or (left.strip() if arrow else ""),
        receiver=flow.receiver or (right.strip() if arrow else ""),
        deadline=microseconds(flow.deadline),
        publishes=lambda exchange_name, user, connection: (
            exchange(exchange_name) and sender_user(user) and sender_connection(connection)
        ),
        takes=_matcher(flow.queues),
        # an open list of dead-letter queues means that they are not known, not that every queue is one
        dead_letters=_matcher(flow.dead_letter_queues) if flow.dead_letter_queues else lambda queue: False,
        delayed_exchange=_matcher(flow.delayed_exchanges),
        delay_queue=_matcher(flow.delay_queues) if flow.delay_queues else lambda queue: False,
        delay_limit=microseconds(flow.delay_limit),
        transactional=flow.transactional,
        receives=lambda user, connection: receiver_user(user) and receiver_connection(connection),
        extract=_extract(flow),
    )


def _extract(flow: FlowSettings) -> Extract:
    preset = PRESETS[flow.preset]
    return extractor(
        message_id=compile_sources(_either(flow.message_id, preset.message_id)),
        order_id=compile_sources(_either(flow.order_id, preset.order_id)),
        stage=compile_sources(_either(flow.stage, preset.stage)),
        user_id=compile_sources(_either(flow.user_id, preset.user_id)),
        error=compile_sources(_either(flow.error, preset.error)),
        # whoever says where the stage stands does not want it guessed from the type
        types=compile_sources(preset.types if flow.stage is None else ()),
        stages=flow.stages,
        parse=parse_json,
    )


def _either(own: Sequence[str] | None, default: Sequence[str]) -> Sequence[str]:
    return default if own is None else own


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Make one test of shell-style, case-sensitive patterns; no patterns match everything."""
    if not patterns:
        return lambda name: True
    matches = re.compile("|".join(translate(pattern) for pattern in patterns)).match
    return lambda name: matches(name) is not None
