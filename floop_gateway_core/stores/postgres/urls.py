"""The URL of a database: a libpq URL with one additional parameter."""

from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

__all__ = ["without_our_parameters"]


def without_our_parameters(url: str) -> tuple[str, bool]:
    """Return the URL for libpq, and whether a pooler of transactions lies between (`pgbouncer=true`).

    Raises ValueError without quoting the URL.
    """
    try:
        parts = urlsplit(url)
        kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "pgbouncer"]
        plain = parts._replace(query=urlencode(kept)).geturl()
        conninfo_to_dict(plain)
    except (ValueError, psycopg.Error):  # whose message may quote the password
        raise ValueError("the URL is malformed, or has a parameter that libpq does not know") from None
    return plain, "pgbouncer=true" in parts.query.split("&")
