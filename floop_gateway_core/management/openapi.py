"""The OpenAPI 3.1 document of the administration and of the gateway's own endpoints, made from the table and the models."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from floop_gateway_core.admin import DIMENSIONS
from floop_gateway_core.errors import CATALOGUE
from floop_gateway_core.management import models
from floop_gateway_core.management.query import FILTERS, MAX_LIMIT
from floop_gateway_core.management.routes import Route

__all__ = ["document"]

Json = dict[str, Any]
PARAMETERS: dict[str, Json] = {
    **{name: {"description": text, "schema": {"type": "string"}} for name, text in FILTERS.items()},
    "status": {"description": FILTERS["status"], "schema": {"type": "integer", "minimum": 100, "maximum": 599}},
    "project": {"description": "a name or an id", "schema": {"type": "string"}},
    "q": {"description": "a part of the name or the owner", "schema": {"type": "string"}},
    "limit": {"schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 100}},
    "cursor": {"description": "the `next` of the previous page", "schema": {"type": "string"}},
    "order": {
        "description": "`settled` is oldest first, and its `next` is never null",
        "schema": {"enum": ["newest", "settled"], "default": "newest"},
    },
    "format": {
        "description": "`jsonl` and `csv` export the whole selection",
        "schema": {"enum": ["json", "jsonl", "csv"], "default": "json"},
    },
    "by": {
        "description": f"one or two of {', '.join(DIMENSIONS)}, separated by a comma",
        "schema": {"type": "string", "default": "day"},
    },
    "erase": {"schema": {"enum": ["true", "false"], "default": "false"}},
}


def document(routes: Iterable[Route]) -> Json:
    """Return the document."""
    paths: Json = {}
    used: set[type[BaseModel]] = {models.Project}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
        used |= {model for model in (route.takes, route.gives) if model is not None}
    _, schemas = models_json_schema(
        [(model, "validation") for model in sorted(used, key=lambda one: one.__name__)],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "floop-gateway administration", "version": version("floop-gateway")},
        "paths": {**paths, **_probes(), **_gateway_paths()},
        "components": {"schemas": {**schemas["$defs"], "Error": _error_schema(), **_gateway_schemas()}},
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _operation(route: Route) -> Json:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in route.parameters
    ]
    parameters += [{"name": name, "in": "query", **PARAMETERS[name]} for name in route.query]
    operation: Json = {
        "operationId": route.handler.__name__
        + ("_of_project" if route.path.startswith("/projects/{p}/usage") else "")
        + ("_of_project" if route.path.startswith("/projects/{p}/summary") else ""),
        "summary": (route.handler.__doc__ or "").strip(),
        "parameters": parameters,
        "responses": {str(route.status): _success(route), "default": _failure()},
    }
    if route.takes is not None:
        operation["requestBody"] = {"content": _content(_ref(route.takes.__name__))}
    return operation


def _success(route: Route) -> Json:
    if route.gives is None:
        events = {"text/event-stream": {"schema": {"type": "string"}}} if route.status == 200 else None
        return {"description": "done", **({"content": events} if events else {})}
    data = _ref(route.gives.__name__)
    if not route.paged:
        return {"description": "done", "content": _content(_object({"data": data}))}
    page = _object({"data": {"type": "array", "items": data}, "next": {"type": ["string", "null"]}})
    content = _content(page)
    if "format" in route.query:
        content |= {"application/jsonl": {"schema": {"type": "string"}}, "text/csv": {"schema": {"type": "string"}}}
    return {"description": "a page", "content": content}


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _failure() -> Json:
    return {"description": "an error", "content": _content(_ref("Error"))}


def _error_schema() -> Json:
    field = _object({"path": {"type": "string"}, "message": {"type": "string"}})
    code = {"enum": [code.value for code in CATALOGUE]}
    error = _object({"code": code, "message": {"type": "string"}})
    error["properties"]["fields"] = {"type": "array", "items": field}
    return _object({"error": error})


def _probes() -> Json:
    def probe(name: str, summary: str) -> Json:
        data = _object({"data": _object({"status": {"type": "string"}})})
        answer = {"description": summary, "content": _content(data)}
        return {
            "get": {
                "operationId": name,
                "summary": summary,
                "responses": {"200": answer, "503": answer},
                "security": [],
            }
        }

    return {
        "/healthz": probe("healthz", "Whether the process answers."),
        "/readyz": probe("readyz", "Whether the store answers and the process is not stopping."),
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Prometheus metrics, if the gateway has that exporter; public if the configuration says so.",
                "responses": {
                    "200": {"description": "the metrics", "content": {"text/plain": {"schema": {"type": "string"}}}},
                    "default": _failure(),
                },
            }
        },
    }


# -- the gateway's own endpoints, at its own mount ---------------------------------------------------------------------


def _gateway_paths() -> Json:
    def path(name: str, request: str, answer: Json) -> Json:
        return {
            "servers": [{"url": "/api/v1/ai", "description": "where the gateway is mounted"}],
            "post": {
                "operationId": f"gateway_{name}",
                "summary": f"The gateway's own endpoint `/{name}`; a key goes into `Authorization: Bearer`.",
                "requestBody": {"required": True, "content": _content(_ref(request))},
                "responses": {"default": _failure(), **answer},
            },
        }

    answer = {
        "200": {
            "description": "an answer, or a stream of frames",
            "content": {**_content(_ref("GatewayAnswer")), "text/event-stream": {"schema": {"type": "string"}}},
        }
    }
    return {
        "/chat": path("chat", "GatewayChat", answer),
        "/generate": path("generate", "GatewayGenerate", answer),
        "/embed": path("embed", "GatewayEmbed", {}),
    }


def _gateway_schemas() -> Json:
    text, integer = {"type": "string"}, {"type": "integer", "minimum": 0}
    options = {
        "model": text,
        "system": text,
        "max_tokens": {"type": "integer", "minimum": 1},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "stream": {"type": "boolean", "default": False},
    }
    message = _object({"role": {"enum": ["system", "user", "assistant"]}, "content": text})
    chat = {"messages": {"type": "array", "minItems": 1, "items": message}}
    usage = _object(
        {
            "input_tokens": integer,
            "output_tokens": integer,
            "total_tokens": integer,
            "credits_used": {"type": "number"},
            "credits_remaining": {"type": ["number", "null"]},
        }
    )
    return {
        "GatewayChat": {"type": "object", "properties": {**chat, **options}, "required": ["messages"]},
        "GatewayGenerate": {"type": "object", "properties": {"prompt": text, **options}, "required": ["prompt"]},
        "GatewayEmbed": {"type": "object"},
        "GatewayAnswer": _object({"content": text, "model": text, "usage": usage, "finishReason": text}),
    }
