"""Compare strategies: metrics per run, intervals over seeds, distance to the frontier, tables and figures."""
