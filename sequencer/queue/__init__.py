"""The way from a submission to a tick: bounded queue, fair order, one durable append."""
