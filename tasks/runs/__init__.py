"""Runs: their jobs, their folders, the devices they use, and how they are started."""
