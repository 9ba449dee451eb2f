"""Signed webhooks for events that an operator should learn of immediately (Standard Webhooks 1.0).

    gateway = Gateway(settings, listeners=[Webhooks("https://example.com/hook", "whsec_…")])

    budget_80_percent    a project has used 80 % of its day's tokens: once a day, whichever process sees it
    breaker_opened       a deployment keeps failing, as this process sees it: each process has breakers of its own

Deliveries run in the background and do not affect requests. A delivery that is not answered with 2xx is retried with
the same `webhook-id` until `RETRY_AFTER_S` is exhausted or the receiver returns 410. Retries end when the process does.
"""

import base64
import binascii
import hashlib
import hmac
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Literal, TypeAlias, get_args

import anyio
import httpx

from floop_gateway_core.clock import Clock, system_clock
from floop_gateway_core.concurrency.background import spawn
from floop_gateway_core.observability.events import BreakerStateChanged, BudgetNearlyUsed, GatewayEvent
from floop_gateway_core.policy.budget import DAY_S

__all__ = ["WebhookEvent", "Webhooks"]

log = logging.getLogger("floop_gateway")

WebhookEvent: TypeAlias = Literal["budget_80_percent", "breaker_opened"]

RETRY_AFTER_S = (1.0, 5.0, 30.0, 300.0, 1800.0)
MAX_UNDER_WAY = 100
"""Maximum number of concurrent deliveries; further events are dropped and logged."""
TIMEOUT_S = 10.0
SECRET_BYTES = range(24, 65)
GONE = 410


class Webhooks:
    """A listener that posts events to `url`.

    `secret` is `whsec_` followed by 24 to 64 bytes in base64. To rotate it, pass several: each message is signed with
    all of them. Raises ValueError for a malformed secret. The host may pass its own `client`, which the host must
    close.
    """

    def __init__(
        self,
        url: str,
        secret: str | Sequence[str],
        *,
        events: Collection[WebhookEvent] = get_args(WebhookEvent),
        client: httpx.AsyncClient | None = None,
        clock: Clock = system_clock,
    ) -> None:
        if not url.startswith(("https://", "http://")):
            raise ValueError("url must start with https:// or http://")
        if unknown := set(events) - set(get_args(WebhookEvent)):
            raise ValueError(f"events must be of {', '.join(get_args(WebhookEvent))}, got {', '.join(sorted(unknown))}")
        secrets = [secret] if isinstance(secret, str) else secret
        self._keys = [_key(one) for one in secrets]
        if not self._keys:
            raise ValueError("a secret must be given")
        self._url = url
        self._events = frozenset(events)
        self._client = client
        self._clock = clock
        self._under_way = 0

    def __call__(self, event: GatewayEvent) -> None:
        """Send what this event is about, if it is wanted."""
        match event:
            case BudgetNearlyUsed(request_id, project, day, used_tokens, daily_tokens):
                date = datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()
                data = {"project": project, "day": date, "used_tokens": used_tokens, "daily_tokens": daily_tokens}
                self._send("budget_80_percent", f"{project} {date}", {**data, "request_id": request_id})
            case BreakerStateChanged(deployment, "open", request_id):
                data = {"deployment": deployment, "request_id": request_id}
                self._send("breaker_opened", f"{deployment} {request_id}", data)
            case _:
                pass

    def _send(self, kind: WebhookEvent, about: str, data: Mapping[str, object]) -> None:
        if kind not in self._events:
            return
        if self._under_way >= MAX_UNDER_WAY:
            log.warning("webhook %s for %s was dropped: %d are already waiting", kind, about, self._under_way)
            return
        # The same event has the same id, whoever sends it again.
        id = f"msg_{hashlib.sha256(f'{kind} {about}'.encode()).hexdigest()[:32]}"
        time = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = json.dumps({"type": kind, "timestamp": time, "data": data}).encode()
        self._under_way += 1
        spawn(partial(self._deliver, kind, id, body))

    async def _deliver(self, kind: WebhookEvent, id: str, body: bytes) -> None:
        try:
            for pause_s in (*RETRY_AFTER_S, None):
                answer = await self._post(id, body)
                if answer is None:
                    return
                if pause_s is None or answer == str(GONE):
                    log.error("webhook %s was not delivered: %s", kind, answer)
                    return
                log.warning("webhook %s failed: %s; retrying in %g s", kind, answer, pause_s)
                await anyio.sleep(pause_s)
        except Exception:
            log.exception("webhook %s was not delivered", kind)
        finally:
            self._under_way -= 1

    async def _post(self, id: str, body: bytes) -> str | None:
        """Return why it was not taken, or None."""
        headers = {"Content-Type": "application/json", **self._signed(id, body)}
        try:
            with anyio.fail_after(TIMEOUT_S):
                if self._client is not None:
                    return await self._ask(self._client, headers, body)
                async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
                    return await self._ask(client, headers, body)
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            return type(error).__name__

    async def _ask(self, client: httpx.AsyncClient, headers: Mapping[str, str], body: bytes) -> str | None:
        # The body of the answer is not read: it may be of any length.
        async with client.stream("POST", self._url, headers=headers, content=body, follow_redirects=False) as response:
            return None if response.is_success else str(response.status_code)

    def _signed(self, id: str, body: bytes) -> dict[str, str]:
        time = str(int(self._clock()))
        signed = f"{id}.{time}.".encode() + body
        marks = (base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in self._keys)
        return {
            "webhook-id": id,
            "webhook-timestamp": time,
            "webhook-signature": " ".join(f"v1,{mark}" for mark in marks),
        }


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith("whsec_") or len(key) not in SECRET_BYTES:
        raise ValueError("a secret must be whsec_ followed by 24 to 64 bytes in base64")
    return key
