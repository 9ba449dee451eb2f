"""The values that travel through the gateway, from a parsed call to a settled record. No behaviour, no I/O."""

from floop_gateway_core.types.amounts import Microcredits, ProjectId, RequestId
from floop_gateway_core.types.answers import (
    AnswerEvent,
    Bill,
    Completed,
    Failed,
    FinishReason,
    Started,
    Texts,
    Usage,
)
from floop_gateway_core.types.calls import DEFAULT_SAMPLING, Call, Endpoint, Sampling
from floop_gateway_core.types.content import Message, Part, Role, TextPart
from floop_gateway_core.types.records import (
    RECORD_FIELDS,
    AttemptRecord,
    AuditLine,
    Ending,
    Entry,
    EntryKind,
    Project,
    ProjectSettings,
    Suspension,
    UsageFilter,
    UsageRecord,
)

__all__ = [
    "DEFAULT_SAMPLING",
    "RECORD_FIELDS",
    "AnswerEvent",
    "AttemptRecord",
    "AuditLine",
    "Bill",
    "Call",
    "Completed",
    "Ending",
    "Endpoint",
    "Entry",
    "EntryKind",
    "Failed",
    "FinishReason",
    "Message",
    "Microcredits",
    "Part",
    "Project",
    "ProjectId",
    "ProjectSettings",
    "RequestId",
    "Role",
    "Sampling",
    "Started",
    "Suspension",
    "TextPart",
    "Texts",
    "Usage",
    "UsageFilter",
    "UsageRecord",
]
