"""Benchmarks that come with the package: distances to posteriors that are known exactly."""
