"""A vhost that belongs to one test."""

from __future__ import annotations

from dataclasses import dataclass

from auditor.demo.server import Broker


@dataclass(frozen=True, slots=True, kw_only=True)
class Vhost:
    """A vhost and the broker it is on."""

    broker: Broker
    name: str

    @property
    def url(self) -> str:
        """The URL by which the administrator logs in to it."""
        return self.broker.url(self.name)
