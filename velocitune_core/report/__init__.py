"""Results as numbers, figures and self-contained HTML pages."""
