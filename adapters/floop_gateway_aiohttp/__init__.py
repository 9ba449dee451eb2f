"""The gateway inside an aiohttp app.

    setup(app, gateway)                              # below /api/v1/ai
    app.add_subapp("/ai", sub_app(gateway))          # anywhere else, or in another sub-application

It only carries bytes: JSON, errors and routes are the core's. Every path and method below the prefix is the gateway's.
The host's middlewares run around it; the app's `client_max_size` does not apply, because the gateway has its own
limit. The gateway is started and closed with the app.
"""

from floop_gateway_aiohttp.app import FloopAdmin, FloopDashboard, setup, sub_app

__all__ = ["FloopAdmin", "FloopDashboard", "setup", "sub_app"]
