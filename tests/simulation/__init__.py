"""The whole sequencer process under fire: one seed, one failure."""
