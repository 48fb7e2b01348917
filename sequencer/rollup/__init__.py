"""Between log and L1: builds and posts batches, follows inbox messages and roll-backs."""
