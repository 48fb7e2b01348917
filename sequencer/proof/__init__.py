"""Whoever trusts nobody: the state rebuilt from L1, checked, challenged, left."""
