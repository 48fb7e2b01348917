"""Records that the system proposes itself: marks, settlements, liquidations, sweeps."""
