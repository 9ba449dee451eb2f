"""The gateway as an ASGI application, to mount in Starlette, FastAPI or any other host; and as a middleware.

    app.mount("/api/v1/ai", FloopGateway(gateway))
    app.add_middleware(FloopGatewayMiddleware, gateway=gateway, prefix="/api/v1/ai")

It only carries bytes: JSON, errors and routes are the core's. If the host passes on the lifespan protocol (to a middleware,
or to the gateway as the whole application), the gateway is started and closed by it. A mounted application gets no
lifespan and needs none, because everything is opened at its first use; close the gateway in the host's own lifespan.
"""

from floop_gateway_asgi.app import ASGIApp, FloopAdmin, FloopDashboard, FloopGateway, FloopGatewayMiddleware

__all__ = ["ASGIApp", "FloopAdmin", "FloopDashboard", "FloopGateway", "FloopGatewayMiddleware"]
