"""Laws of the loss over mixtures, and the mixture that is best for an objective."""
