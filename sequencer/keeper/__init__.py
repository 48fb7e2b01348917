"""What the system itself proposes: marks, settlements, liquidations, sweeps."""
