"""What every dialect tells about money."""

from floop_gateway_core.money import format_credits
from floop_gateway_core.types import Bill

__all__ = ["credit_members"]


def credit_members(bill: Bill) -> str:
    """Return our two members of a usage report, exact, as JSON without braces; only the first while a store is down."""
    used = f'"credits_used": {format_credits(bill.credits_used)}'
    left = bill.credits_remaining
    return used if left is None else f'{used}, "credits_remaining": {format_credits(left)}'
