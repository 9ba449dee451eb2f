"""The keywords of JSON Schema, grouped by the kind of value they take."""

MAPS = ("properties", "patternProperties", "$defs", "definitions")
"""Values are objects that map arbitrary names to schemas."""
LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
"""Lists of schemas."""
SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
"""One schema."""
VALUES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength")
"""Limits of a value."""
COUNTS = ("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties")
"""Limits on the number of items or properties."""
