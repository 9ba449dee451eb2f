"""The keywords of JSON schemas, by what stands under them."""

MAPS = ("properties", "patternProperties", "$defs", "definitions")
"""Schemas by names that are not keywords."""
LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
"""Lists of schemas."""
SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
"""One schema."""
VALUES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength")
"""Limits of a value."""
COUNTS = ("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties")
"""Limits of how many there are."""
