"""Section `notify` of params.yaml."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from pipelines.sections import Section, refuse

LOCAL = "127.0.0.1"  # a relay on this machine, which a webhook may name without more
PUBLIC_RULE = "a webhook is at a public address, unless notify.private says that a private one is meant"
PUBLIC_DO = "set notify.private to true if that is yours"


class NotifyParams(Section):
    """Who is told that a run failed or crashed. No stage reads it, so a change makes nothing stale."""

    webhook: str | None
    private: bool
    command: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None

    @field_validator("webhook")
    @classmethod
    def _known_kind(cls, webhook: str | None) -> str | None:
        if webhook is None:
            return None
        parts = urlsplit(webhook)
        local = parts.scheme == "http" and parts.hostname == LOCAL
        if not parts.hostname or not (parts.scheme == "https" or local):
            raise ValueError(f"a webhook is an https:// address (http:// only on {LOCAL})")
        if parts.username or parts.password:
            raise ValueError("a webhook's secret comes from the variable REFT_WEBHOOK_SECRET, not from its address")
        _ = parts.port
        return webhook

    @model_validator(mode="after")
    def _is_public(self) -> Self:
        """Of a name, whoever sends finds out what it stands for."""
        host = urlsplit(self.webhook or "").hostname
        if host and host != LOCAL and not self.private and is_private(host):
            refuse([f"{PUBLIC_RULE}; got {host}; {PUBLIC_DO}"])
        return self


def is_private(host: str) -> bool:
    """Whether a host is the number of a private network, of a link, or another one that is not public."""
    try:
        number = ip_address(host)
    except ValueError:  # a name
        return False
    mapped = number.ipv4_mapped if isinstance(number, IPv6Address) else None
    return not (mapped or number).is_global or number.is_multicast
