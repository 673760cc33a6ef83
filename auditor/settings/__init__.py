"""Settings: what the operator may decide, where it is read from, and what is said when it is wrong."""

from auditor.settings.checks import Address
from auditor.settings.loading import DEFAULT_CONFIG, load
from auditor.settings.model import (
    Alerts,
    Audit,
    Broker,
    Daemon,
    FlowSettings,
    Http,
    Ledger,
    Log,
    Management,
    Settings,
    StageSettings,
    Tap,
    Tracing,
)
from auditor.settings.units import duration, microseconds, size

__all__ = [
    "DEFAULT_CONFIG",
    "Address",
    "Alerts",
    "Audit",
    "Broker",
    "Daemon",
    "FlowSettings",
    "Http",
    "Ledger",
    "Log",
    "Management",
    "Settings",
    "StageSettings",
    "Tap",
    "Tracing",
    "duration",
    "load",
    "microseconds",
    "size",
]
