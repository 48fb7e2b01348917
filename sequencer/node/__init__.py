"""The operator's processes: the leader, the standby, and the checks under which they refuse orders."""
