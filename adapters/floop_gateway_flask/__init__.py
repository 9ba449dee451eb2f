"""The gateway inside a Flask app, and as a plain WSGI application for any other host.

    FloopGateway(app, gateway)                                    # or FloopGateway(gateway=gateway).init_app(app)
    application = FloopGatewayMiddleware(application, gateway)    # Django, Falcon, Pyramid ...
    application = wsgi_app(gateway)                               # to mount under a SCRIPT_NAME, or to serve alone

It only carries bytes: JSON, errors and routes are the core's. Below the prefix every path and every method is the
gateway's, and of Flask's code only the host's CORS headers are used (see `cors`). The gateway's event loop has its own
thread, started at the first request, so an app may be loaded before its server forks. Under gevent or eventlet, which
replace threads, it does not run.
"""

from floop_gateway_flask.app import FloopAdmin, FloopDashboard, FloopGateway, FloopGatewayMiddleware, wsgi_app

__all__ = ["FloopAdmin", "FloopDashboard", "FloopGateway", "FloopGatewayMiddleware", "wsgi_app"]
