"""Estimate the cost and memory of runs before they start."""
