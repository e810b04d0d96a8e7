"""Trainings: what they are, where they run, how they are started."""
