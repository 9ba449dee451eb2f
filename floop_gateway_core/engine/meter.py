"""What an attempt has produced so far: the basis of its bill.

The provider's own counts are used if its last report covers everything received. Otherwise, input is the reported count
or the estimate, and output is the greater of its last cumulative report and the estimate of the decoded text and
thinking (contract: Billing). Text is kept until the end, because only then is it known whether an estimate is needed;
an upstream that clearly exceeds its grant is stopped, so what is kept is bounded.
"""

from dataclasses import replace
from typing import assert_never

from floop_gateway_core.policy.tokens.estimate import estimate_tokens
from floop_gateway_core.providers.base import Delta, DeltaItem, texts_alone
from floop_gateway_core.types import RefusalStart, Started, Thought, ToolEnd, ToolPiece, Usage

__all__ = ["BYTES_PER_TOKEN_BEYOND_DOUBT", "Meter"]

BYTES_PER_TOKEN_BEYOND_DOUBT = 16


class Meter:
    """Counts one attempt. `sent` is whether the request has been sent: before that, nothing is owed."""

    def __init__(self, *, input_tokens: int, granted_tokens: int, thinking_tokens: int, vocabulary: str) -> None:
        self.sent = False
        self._expected_input = input_tokens
        self._vocabulary = vocabulary
        self._produced: list[str] = []
        self._thoughts: list[int] = []
        self._text_room = granted_tokens * BYTES_PER_TOKEN_BEYOND_DOUBT
        self._thinking_room = (granted_tokens + thinking_tokens) * BYTES_PER_TOKEN_BEYOND_DOUBT
        self._report: Usage | None = None
        self._covers = False
        self._thought = False
        self._hidden_tokens = 0
        self._unsent: list[str] = []
        self._late_report: Usage | None = None

    def send(self) -> None:
        """Note that the request is being sent and may cost something from now on."""
        self.sent = True

    @property
    def input_tokens(self) -> int:
        """The input's tokens as reported so far, else as estimated."""
        return self._expected_input if self._report is None else self._report.input_tokens

    def started(self, deployment: str) -> Started:
        """Return the beginning of an answer, with the input as it is known by now."""
        report = self._report
        if report is None:
            return Started(deployment, self._expected_input)
        return Started(deployment, report.input_tokens, report.cached_tokens, report.cache_written_tokens)

    @property
    def characters(self) -> int:
        """Return the characters of text and thinking so far."""
        return sum(map(len, self._produced))

    @property
    def text(self) -> str:
        """Return the text so far, without thinking."""
        thoughts = set(self._thoughts)
        return "".join(text for place, text in enumerate(self._produced) if place not in thoughts)

    @property
    def usage_is_complete(self) -> bool:
        """Whether the provider has reported every count of what it has produced."""
        report = self._report
        return (
            self._covers
            and report is not None
            and report.input_tokens > 0
            and (report.output_tokens > 0 or not self._produced)
        )

    def add(self, delta: Delta) -> None:
        """Count a delta."""
        if (texts := texts_alone(delta.items)) is not None:
            self._add_text("".join(texts))
        else:
            self._add_items(delta.items)
        if delta.items and not all(map(_is_closing, delta.items)):
            self._covers = False
        if delta.usage is not None:
            self._report, self._covers = delta.usage, delta.usage_is_complete

    def _add_text(self, text: str) -> None:
        if text:
            self._produced.append(text)
            self._text_room -= _bytes(text)

    def _add_items(self, items: list[DeltaItem]) -> None:
        for item in items:
            match item:
                case str():
                    self._add_text(item)
                case Thought(text):
                    if text:
                        self._thought = True
                        self._thoughts.append(len(self._produced))
                        self._produced.append(text)
                        self._thinking_room -= _bytes(text)
                case ToolPiece(arguments=arguments, name=name):
                    self._add_text(name + arguments)
                case ToolEnd() | RefusalStart():
                    pass
                case _:
                    assert_never(item)

    @property
    def exceeded_grant(self) -> bool:
        """Whether the upstream has clearly exceeded its grant."""
        return self._text_room < 0 or self._thinking_room < 0

    @property
    def may_hide_thinking(self) -> bool:
        """Whether there may have been thinking that the stream has not shown and the provider has not reported."""
        return self.sent and not self._thought and not self.usage_is_complete

    def add_unsent(self, delta: Delta) -> None:
        """Note output that came after the client left: it is not billed, but its report may reveal hidden thinking."""
        self._unsent += [item for item in delta.items if isinstance(item, str)]
        self._unsent += [item.name + item.arguments for item in delta.items if isinstance(item, ToolPiece)]
        if any(isinstance(item, Thought) for item in delta.items):
            self._thought = True
        if delta.usage is not None:
            self._late_report = delta.usage

    def cut_short(self, hidden_tokens: int) -> None:
        """Note that the client has left, and how many tokens of hidden thinking to assume if no report comes."""
        if self.may_hide_thinking:
            self._hidden_tokens = hidden_tokens

    def _take_late_report(self, late: Usage) -> None:
        """Take the input and the hidden thinking from a late report, not its text: nobody received the rest."""
        self._hidden_tokens = late.reasoning_tokens
        if not late.reasoning_tokens and not self._thought:
            text = estimate_tokens("".join(self._produced + self._unsent), self._vocabulary)
            self._hidden_tokens = max(0, late.output_tokens - text.upper)
        output = 0 if self._report is None else self._report.output_tokens
        self._report, self._covers = replace(late, output_tokens=output, reasoning_tokens=0), False

    def usage(self) -> Usage:
        """Return the usage to bill if the attempt ends now."""
        if self._late_report is not None:
            self._take_late_report(self._late_report)
            self._late_report = None
        report = self._report
        if report is not None and self.usage_is_complete:
            return report
        hidden = self._hidden_tokens
        produced = estimate_tokens("".join(self._produced), self._vocabulary).expected if self._produced else 0
        produced += hidden
        if report is None:
            return Usage(self._expected_input, produced, reasoning_tokens=hidden)
        # Each count that is missing, or is an impossible 0, is estimated on its own.
        output = report.output_tokens if self._covers and report.output_tokens else max(report.output_tokens, produced)
        given = report.input_tokens or self._expected_input
        reasoning = max(report.reasoning_tokens, min(hidden, output))
        return replace(report, input_tokens=given, output_tokens=output, reasoning_tokens=reasoning)


def _is_closing(item: DeltaItem) -> bool:
    """Return whether an item only marks the end of a call: the vendor does not generate it and does not count it."""
    if isinstance(item, ToolPiece):
        return not item.id and item.arguments == "{}"
    return isinstance(item, ToolEnd | RefusalStart)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
