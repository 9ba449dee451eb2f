"""Bytes ↔ values: parsing requests, framing answers. Pure, standard library only, each module importable alone."""
