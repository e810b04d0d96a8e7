"""How the large mixture is made."""
