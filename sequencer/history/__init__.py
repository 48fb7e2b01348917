"""Orders, trades and cash of every account, derived from the log and kept beside it."""
