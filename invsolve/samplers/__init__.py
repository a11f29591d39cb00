"""Samplers: any callable sampler(posterior, n, seed, first=0) -> samples first .. first + n - 1.

    walk           what walks from noise to sample share        pc            predictor and corrector in turn
    predictors     a step from t to s < t; renoise is another   correctors    a move at fixed t
    flow           the probability-flow ODE, and its codes      ode           samples by it
    dopri          its integrator                               density       log density by it
    smc            particles, steered and weighed               ordering      the order they are resampled in
    mala           moves of its draws                           annealed      what walks x_0 in place of x_t
    daps, pnp_dm, enkg    samplers that do                      red_diff      a point estimate that does
    conditional    their draws of N(c, r^2 I) given y

Read predictors, walk, pc first.
"""
