"""TLS contexts from the files that the settings name."""

from __future__ import annotations

import ssl
from pathlib import Path

from auditor.errors import SettingsError


def context(ca_file: Path | None, cert_file: Path | None = None, key_file: Path | None = None) -> ssl.SSLContext:
    """Return a context that checks the peer by these authorities; SettingsError names the file that cannot be used."""
    at = ca_file
    try:
        made = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            at = cert_file
            made.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            "Could not use a TLS file", on=str(at), why=str(error), hint="It must be readable for this user, and PEM."
        ) from error
    return made
