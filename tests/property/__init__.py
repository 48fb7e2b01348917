"""Properties: whatever records come, what must hold holds."""
