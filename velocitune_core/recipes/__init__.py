"""The mixtures that come with the project."""
