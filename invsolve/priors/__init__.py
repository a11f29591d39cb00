"""invsolve.priors."""
