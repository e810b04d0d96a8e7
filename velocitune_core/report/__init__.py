"""Summaries, figures and pages."""
