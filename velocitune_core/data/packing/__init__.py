"""Documents to packed rows of tokens."""
