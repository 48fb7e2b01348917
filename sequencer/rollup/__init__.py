"""Between log and L1: batches made and posted, messages and roll-backs followed."""
