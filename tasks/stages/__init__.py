"""One module per stage of DVC, named like it."""
