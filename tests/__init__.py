"""Tests of the whole; a package, because an installed one owns the name."""
