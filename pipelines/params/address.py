"""Addresses in params.yaml. None holds a secret: params.yaml and dvc.lock stand in git, and in what DVC pushes."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

_KEYS = r"(?:ssl)?passw(?:or)?d|[^=&\s]*(?:secret|token)[^=&\s]*"  # of a query
_OF_QUERY = re.compile(rf"(?i)([?&](?:{_KEYS})=)[^&\s'\"]*")
_USER = re.compile(r"://[^@\s]*@")
# As SQLAlchemy reads an address, where a password may hold anything but an @.
_OF_DATABASE = re.compile(r"^[\w+]+://[^:/@]*:[^@]+@")
WAYS = {
    "http": "put them into the environment, as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or as "
    "MLFLOW_TRACKING_TOKEN",
    "postgresql": "put it into ~/.pgpass, or into the environment as PGPASSWORD",
    "mysql": "put it into a file of options that the address names, as ?read_default_file=/home/me/.my.cnf",
}


def check_address(uri: str) -> None:
    """Raise ValueError for an address that holds a secret or a NUL, or whose host or port cannot be read."""
    if "\0" in uri:
        raise ValueError("an address must not hold a NUL")
    kind = re.split(r"[+:]", uri, maxsplit=1)[0].removesuffix("s")
    if _holds_secret(uri, kind):
        what = "a user or password" if kind == "http" else "a password"
        raise ValueError(
            f"an address must not hold {what}, which params.yaml and dvc.lock would keep; got {hide_secrets(uri)}; "
            f"{WAYS.get(kind, 'leave it out')}"
        )
    _ = urlsplit(uri).port


def _holds_secret(uri: str, kind: str) -> bool:
    in_front = "@" in urlsplit(uri).netloc if kind == "http" else _OF_DATABASE.match(uri) is not None
    keys = (key for key, _ in parse_qsl(uri.partition("?")[2], keep_blank_values=True))
    return in_front or any(re.fullmatch(_KEYS, key, re.IGNORECASE) for key in keys)


def hide_secrets(text: str) -> str:
    """A text without the users, passwords and tokens of the addresses in it."""
    return _OF_QUERY.sub(r"\1***", _USER.sub("://***@", text))
