"""How figures and numbers look, shared by reports and comparisons."""
