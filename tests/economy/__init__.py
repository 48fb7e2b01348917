"""A package, so that the parts of the economy fuzz import each other by name."""
