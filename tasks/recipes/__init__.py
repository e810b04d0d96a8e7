"""The inputs of the large mixture, and how they are made."""
