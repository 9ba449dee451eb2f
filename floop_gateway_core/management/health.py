"""The state of a process, and a question to a deployment that costs one token."""

import time

import anyio

from floop_gateway_core.errors import AdminError, StoreUnavailable
from floop_gateway_core.gateway import Gateway
from floop_gateway_core.management.present import instant
from floop_gateway_core.providers.base import UpstreamCall, UpstreamFault
from floop_gateway_core.types import Message

__all__ = ["NoSuchDeployment", "TestedTooSoon", "health_of", "readiness", "store_answers", "test_deployment"]

TEST_EVERY_S = 5.0
TEST_S = 30.0
STORE_S = 2.0
TEST_TOKENS = 16
"""Some models reject a lower `max_tokens`."""


class NoSuchDeployment(AdminError):
    """The configuration has no deployment of this name."""


class TestedTooSoon(AdminError):
    """A deployment was tested moments ago."""


async def health_of(gateway: Gateway) -> dict[str, object]:
    """Return deployments with their breakers, the state of the store, and the pending settlements."""
    states = gateway.health()
    deployments = [
        {
            "deployment": name,
            "provider": one.provider,
            "model": one.model,
            "breaker": states[name],
            "transitions": [
                {"at": instant(at), "state": state} for at, state in gateway.runtime.transitions.get(name, ())
            ],
        }
        for name, one in gateway.settings.deployments.items()
    ]
    return {
        "deployments": deployments,
        "store": "ok" if await store_answers(gateway) else "unavailable",
        "pending_settlements": len(gateway.runtime.pending_settlements) + gateway.runtime.spooled,
        "stopping": gateway.runtime.stopping,
    }


async def store_answers(gateway: Gateway) -> bool:
    """Return whether the stores answer within `STORE_S`; without its rate store the gateway may admit all."""
    with anyio.move_on_after(STORE_S):
        try:
            await gateway.stores.ledger.account("")
            if not gateway.stores.admits_without_rate:
                await gateway.stores.try_rate(gateway.runtime.clock())
        except StoreUnavailable:
            return False
        return True
    return False


def readiness(gateway: Gateway, *, ready: bool) -> dict[str, object]:
    """Return whether the process can serve, and its deployments' breakers."""
    return {"status": "ready" if ready else "not ready", "deployments": gateway.health()}


async def test_deployment(gateway: Gateway, name: str) -> tuple[bool, str | None]:
    """Ask a deployment one short question; return whether it answered, else why not, in our words.

    Nothing is charged or recorded, and its breaker does not count it. Raises `NoSuchDeployment`, and `TestedTooSoon`
    within five seconds of the last test.
    """
    runtime = gateway.runtime
    deployment = runtime.routing.deployments.get(name)
    if deployment is None:
        raise NoSuchDeployment(f"unknown deployment {name[:100]!r}")
    now = time.monotonic()
    if now - runtime.tested_at.get(name, -TEST_EVERY_S) < TEST_EVERY_S:
        raise TestedTooSoon(f"deployment {name!r} was tested less than {TEST_EVERY_S:g} s ago")
    runtime.tested_at[name] = now
    call = UpstreamCall(deployment.model, (Message.of("user", "Say OK."),), None, TEST_TOKENS)
    with anyio.move_on_after(TEST_S):
        try:
            async with deployment.provider.open(call, lambda: None) as stream:
                while (await stream.next()).finish is None:
                    pass
        except UpstreamFault as fault:
            return False, f"{fault.reason} ({fault.fault.value})"
        return True, None
    return False, f"no answer within {TEST_S:g} s"
