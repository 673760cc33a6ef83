"""Every setting there is: one model, a section for each room that reads it.

Durations are seconds and sizes are bytes once they are read. `config/auditor.toml` shows all of it to the operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from auditor.presets import PresetName
from auditor.settings.checks import AMQP, HTTP, Address, Taken, address, at_least, web_address
from auditor.settings.units import (
    Bytes,
    FilePath,
    HttpUrl,
    LabelName,
    Listen,
    Name,
    OwnName,
    Pattern,
    Seconds,
    SourceText,
)

MIB = 1024 * 1024
HOUR = 3600.0
DAY = 86400.0


class Section(BaseModel):
    """A table of the settings; a key that it does not have is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Management(Section):
    """The broker's management API: switches the firehose on and finds out why it is off."""

    url: str = ""  # http://HOST:PORT or https://HOST:PORT; empty: not used
    nodes: list[str] = []  # the same of the cluster's other nodes: each switches its own firehose only
    user: str = ""  # empty: the broker's
    password: SecretStr | None = None  # none: the broker's
    ca_file: FilePath | None = None  # PEM; none: the system's authorities

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if value:
            address(value, HTTP, "broker.management")
        return value.rstrip("/")

    @field_validator("nodes")
    @classmethod
    def _check_nodes(cls, value: list[str], info: ValidationInfo) -> list[str]:
        if value and not info.data.get("url"):
            raise ValueError("broker.management.url beside them")
        return [cls._check_url(url) for url in value]


class Broker(Section):
    """The broker whose firehose is read."""

    url: str = "amqp://127.0.0.1:5672"
    user: str = "guest"
    password: SecretStr = SecretStr("guest")
    nodes: list[str] = []  # URLs of the cluster's other nodes
    vhosts: list[Name] = Field(default=["/"], min_length=1)
    ca_file: FilePath | None = None  # PEM; none: the system's authorities
    cert_file: FilePath | None = None  # PEM; the auditor's own certificate, where the broker asks for one
    key_file: FilePath | None = None  # PEM; the key to it
    heartbeat: Seconds = Field(default=10.0, ge=1, le=600)
    connect_timeout: Seconds = 10.0
    management: Management = Management()

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        address(value, AMQP, "broker")
        return value

    @field_validator("nodes")
    @classmethod
    def _check_nodes(cls, value: list[str], info: ValidationInfo) -> list[str]:
        urls = [*([info.data["url"]] if "url" in info.data else []), *value]
        if len({address(url, AMQP, "broker")[:2] for url in urls}) != len(urls):
            raise ValueError("each node once, and not the one of broker.url again")
        return value

    @field_validator("vhosts")
    @classmethod
    def _check_vhosts(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("each virtual host once")
        return value

    @field_validator("key_file")
    @classmethod
    def _check_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None and info.data.get("cert_file") is not None:
            raise ValueError("the file with the key to broker.cert_file")
        return value

    @property
    def addresses(self) -> list[Address]:
        """Host, port and TLS of each node as its URL has them, the one of `url` first."""
        return [address(url, AMQP, "broker") for url in (self.url, *self.nodes)]

    @property
    def management_user(self) -> str:
        """The user for the management API."""
        return self.management.user or self.user

    @property
    def management_password(self) -> SecretStr:
        """The password for the management API."""
        return self.password if self.management.password is None else self.management.password


class Tap(Section):
    """How the firehose is read."""

    queue: OwnName = "auditor.trace"
    canary_exchange: OwnName = "auditor.canary"
    max_bytes: Bytes = Field(
        default=1024 * MIB, ge=MIB
    )  # bound of the trace queue; what is beyond it is dropped and becomes a gap
    bind: Literal["auto", "all"] = "auto"  # auto: only what the flows need
    enable_firehose: bool = True
    broker_timestamps: bool = False  # whether the broker itself writes the time into each message
    consumer: Literal["fast", "plain"] = "fast"  # plain: by the client library alone; a way back
    batch_events: int = Field(default=4000, ge=1, le=50_000)
    batch_linger: Seconds = Field(default=0.05, le=10)  # how long a batch waits to fill
    prefetch: int = Field(default=8000, ge=1, le=65_535)  # 16 bits in AMQP
    max_buffered_bytes: Bytes = Field(default=64 * MIB, ge=MIB)  # bodies held in memory before their batch is committed
    canary_interval: Seconds = 1.0
    canary_timeout: Seconds = 5.0
    reconnect_min: Seconds = 0.5
    reconnect_max: Seconds = 30.0

    @field_validator("prefetch")
    @classmethod
    def _check_prefetch(cls, value: int, info: ValidationInfo) -> int:
        # with less, no batch would ever be full, and each would wait out its linger
        return at_least(value, "tap.batch_events", info)

    @field_validator("canary_timeout")
    @classmethod
    def _check_canary(cls, value: float, info: ValidationInfo) -> float:
        return at_least(value, "tap.canary_interval", info)

    @field_validator("reconnect_max")
    @classmethod
    def _check_reconnect(cls, value: float, info: ValidationInfo) -> float:
        return at_least(value, "tap.reconnect_min", info)


class Ledger(Section):
    """Where the ledger is, and for how long it keeps what."""

    path: FilePath = Path("/var/lib/auditor/ledger.db")
    keep_healthy: Seconds = 30 * DAY  # messages all of whose hops were delivered
    keep_verdicts: Seconds = 365 * DAY  # all others
    prune_interval: Seconds = 60.0
    # below it no batch is written: room for the log (64 MiB), for pruning, and for others on the disk
    min_free: Bytes = 256 * MIB

    @field_validator("keep_verdicts")
    @classmethod
    def _check_keep(cls, value: float, info: ValidationInfo) -> float:
        return at_least(value, "ledger.keep_healthy", info)


class Audit(Section):
    """How verdicts are reached."""

    orphan_wait: Seconds = 5.0  # how long a delivery waits for its publish
    reinspect: Seconds = 30.0  # after which the queue of a stuck hop is looked at again
    max_open_hops: int = Field(default=25_000, ge=1000)  # in memory, of each vhost; the others are read when needed
    completeness_interval: Seconds = 10.0  # between two looks at the broker's counters; needs broker.management


class Daemon(Section):
    """The daemon as a process."""

    shutdown_timeout: Seconds = Field(default=8.0, ge=1)  # less than the 10 s that containers are given to stop


class Tracing(Section):
    """What is exported as spans. Where to: as the variables OTEL_EXPORTER_OTLP_* say, unless it stands here."""

    enabled: bool = False
    protocol: Literal["", "http/protobuf", "grpc"] = ""  # empty: the variables', or else http/protobuf
    endpoint: str = ""  # http://HOST:PORT or https://HOST:PORT; empty: the variables'
    headers: SecretStr | None = None  # "name=value,name=value", values URL-encoded; none: the variables'
    ca_file: FilePath | None = None  # PEM; none: the variables', or else the library's own authorities
    service_name: Name = "rabbitmq"
    parent: Literal["message", "order"] = "message"  # of a hop's span: the message's own context, or the order's root
    outbox_rows: int = Field(default=1_000_000, ge=1_000)  # bound of what waits, about 25 MB
    ui_url: str = ""  # of a page that shows a trace, with {trace_id} in it; empty: not shown

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        if value:
            web_address(value, "tracing.headers")
        return value.rstrip("/")

    @field_validator("ui_url")
    @classmethod
    def _check_ui_url(cls, value: str) -> str:
        if value and (not value.startswith(("http://", "https://")) or "{trace_id}" not in value):
            raise ValueError("http:// or https://, with {trace_id} in it, such as http://jaeger:16686/trace/{trace_id}")
        return value


class StageSettings(Section):
    """A stage of an order's life."""

    name: Name
    system: str = ""  # the one that announces it; empty: whichever does
    deadline: Seconds | None = None  # how long an order may be in it; none: as long as it takes


ORDER_STAGES = [
    StageSettings(name="INITIATED", system="shop", deadline=DAY),
    StageSettings(name="FILE_UPLOADED", system="shop", deadline=DAY),
    StageSettings(name="SUBMITTED", system="shop", deadline=HOUR),
    StageSettings(name="PRICE_CALCULATED", system="mes", deadline=DAY),
    StageSettings(name="MANUFACTURING_APPROVED", system="crm", deadline=HOUR),
    StageSettings(name="MANUFACTURING_STARTED", system="mes", deadline=7 * DAY),
    StageSettings(name="MANUFACTURING_COMPLETED", system="mes", deadline=DAY),
    StageSettings(name="PACKAGING", system="mes", deadline=DAY),
    StageSettings(name="SHIPPED", system="mes", deadline=14 * DAY),
    StageSettings(name="CLOSED", system="crm"),
]
"""The stages of a custom order, from the shop to its end."""


class Alerts(Section):
    """What is told to whom when something is wrong."""

    alertmanagers: list[HttpUrl] = []  # each is told everything
    webhooks: list[HttpUrl] = []  # get the same JSON, at the address as it stands
    user: str = ""  # basic authentication, with the password
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")  # bearer authentication
    ca_file: FilePath | None = None  # PEM; none: the system's authorities
    cert_file: FilePath | None = None  # PEM; the auditor's own certificate
    key_file: FilePath | None = None  # PEM; the key to it
    log: bool = True  # whether alerts are told in the log as well
    labels: dict[LabelName, str] = {}  # the operator's own, on every alert
    forget: Seconds = 3 * DAY  # after which a verdict that nobody has acknowledged fires no longer
    lag: Seconds = 30.0  # how far the watermark may be behind
    gap: Seconds = HOUR  # for how long a gap is told after it has ended
    page: str = ""  # where the ledger's pages are, for links; empty: no links
    runbook: str = ""  # where docs/operating.md is shown, for links to what to do; empty: no links

    @field_validator("key_file")
    @classmethod
    def _check_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None and info.data.get("cert_file") is not None:
            raise ValueError("the file with the key to alerts.cert_file")
        return value


class Http(Section):
    """Where metrics and health are to be had."""

    listen: Listen = "127.0.0.1:9464"  # HOST:PORT; port 0 takes a free one; empty: nowhere


class Web(Section):
    """The pages of `auditor web`."""

    listen: Listen = "127.0.0.1:8001"  # HOST:PORT; port 0 takes a free one
    cert_file: FilePath | None = None  # PEM; with it, TLS is spoken
    key_file: FilePath | None = None  # PEM; the key to it
    users: dict[Name, SecretStr] = {}  # "ROLE:HASH" by name; the hash as `auditor web --hash-password` prints it
    proxies: list[IPvAnyAddress] = []  # whose headers say who somebody is
    user_header: str = "X-Forwarded-User"
    role_header: str = "X-Forwarded-Role"
    # of those who have not logged in; empty: nobody's, or support where there is no login at all
    anonymous: Literal["", "viewer", "support", "admin"] = ""
    access_db: FilePath | None = None  # the table of who looked at what; none: JSON lines on stdout alone
    keep_access: Seconds = 90 * DAY
    query_time: Seconds = Field(default=1.0, le=60)  # after which a query is given up

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        if not value:
            raise ValueError('HOST:PORT, such as "127.0.0.1:8001"')
        return value

    @field_validator("users")
    @classmethod
    def _check_users(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for entry in value.values():
            role, _, hashed = entry.get_secret_value().partition(":")
            if role not in ("viewer", "support", "admin") or hashed.count("$") != 3:
                raise ValueError('"ROLE:HASH" by name, with the role viewer, support or admin')
        return value

    @field_validator("key_file")
    @classmethod
    def _check_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None and info.data.get("cert_file") is not None:
            raise ValueError("the file with the key to web.cert_file")
        return value


class Log(Section):
    """What the daemon says about itself, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class FlowSettings(Section):
    """A path between two systems. Empty lists of patterns match everything."""

    name: Name
    sender: str = ""  # empty: what stands before "->" in the name
    receiver: str = ""  # empty: what stands after it
    deadline: Seconds = 60.0
    exchanges: list[Pattern] = []  # published to; "" is the default exchange
    sender_users: list[Pattern] = []
    sender_connections: list[Pattern] = []
    queues: list[Pattern] = []  # that the receiver is served from
    dead_letter_queues: list[Pattern] = []  # that dead letters end in; empty: not known, all are watched
    delayed_exchanges: list[Pattern] = []  # of the type x-delayed-message; empty: not known, any may be one
    delay_queues: list[Pattern] = []  # where messages wait until their time to live is up; empty: there are none
    delay_limit: Seconds = 3600.0  # how long they wait there at most
    transactional: bool = False  # whether publishes may be rolled back
    receiver_users: list[Pattern] = []
    receiver_connections: list[Pattern] = []
    preset: PresetName = "generic"
    # Where to look; none: where the preset says. An empty list: nowhere.
    message_id: list[SourceText] | None = None
    order_id: list[SourceText] | None = None
    stage: list[SourceText] | None = None
    user_id: list[SourceText] | None = None
    error: list[SourceText] | None = None
    stages: dict[str, Name] = {}  # found word -> stage
    trace_ratio: float = Field(default=1.0, ge=0, le=1)  # of the orders, whose healthy hops are told to tracing

    @field_validator("name", mode="before")
    @classmethod
    def _check_name(cls, value: Any) -> Any:
        if isinstance(value, Taken):
            raise ValueError("a name that no other flow has")
        return value


class Settings(BaseSettings):
    """All settings. Made from arguments alone; `auditor.settings.load` also asks environment, secrets and file."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, validate_default=True, env_prefix="AUDITOR_", env_nested_delimiter="__"
    )

    broker: Broker = Broker()
    tap: Tap = Tap()
    ledger: Ledger = Ledger()
    audit: Audit = Audit()
    daemon: Daemon = Daemon()
    tracing: Tracing = Tracing()
    alerts: Alerts = Alerts()
    http: Http = Http()
    web: Web = Web()
    log: Log = Log()
    stages: list[StageSettings] = Field(default=ORDER_STAGES, max_length=60)
    flows: list[FlowSettings] = []  # none: one flow that takes everything

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave only the arguments: a test or the demo must not depend on the machine it runs on."""
        return (init_settings,)

    @field_validator("stages")
    @classmethod
    def _check_stages(cls, value: list[StageSettings]) -> list[StageSettings]:
        if len({stage.name for stage in value}) != len(value):
            raise ValueError("each stage once")
        return value

    @field_validator("flows", mode="before")
    @classmethod
    def _mark_taken_names(cls, value: Any) -> Any:
        """Mark a name used before, so that its own check refuses it, by its key, beside all other mistakes."""
        if not isinstance(value, list):
            return value
        seen: set[str] = set()
        flows: list[Any] = []
        for flow in value:
            fields = flow.model_dump(exclude_unset=True) if isinstance(flow, FlowSettings) else flow
            name = fields.get("name") if isinstance(fields, Mapping) else None
            if isinstance(name, str):
                flows.append({**fields, "name": Taken(name)} if name in seen else flow)
                seen.add(name)
            else:
                flows.append(flow)
        return flows
