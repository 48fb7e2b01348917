"""Everything on one machine: the exchange at once, its demo, its lies, its bench."""
