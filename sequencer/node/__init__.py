"""The operator's processes: the leader, the standby, and what they refuse to do."""
