"""Pure functions from stage results to matplotlib figures: no pyplot, no global state.

A domain has the same colour in every figure. Axes carry units; the caller saves the `Figure` that is returned.
"""
