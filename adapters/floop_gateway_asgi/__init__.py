"""The gateway as an ASGI application, to mount in Starlette, FastAPI or any other host; and as a middleware.

    app.mount("/api/v1/ai", FloopGateway(gateway))
    app.add_middleware(FloopGatewayMiddleware, gateway=gateway, prefix="/api/v1/ai")

It carries bytes: no JSON, no error and no route is known here. A host that runs the lifespan protocol for us (a middleware,
or the gateway as the whole application) gets the gateway started and closed; a mounted application gets none, and needs
none: everything is opened at its first use. Close the gateway in the host's own lifespan there.
"""

from floop_gateway_asgi.app import ASGIApp, FloopGateway, FloopGatewayMiddleware

__all__ = ["ASGIApp", "FloopGateway", "FloopGatewayMiddleware"]
