"""invsolve.samplers."""
