"""The state in memory: records applied, snapshots written, questions answered."""
