"""Who did what: orders, trades and cash of every account, derived from the log, kept beside it."""
