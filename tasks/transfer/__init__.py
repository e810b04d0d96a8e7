"""Runs on another machine: a folder of jobs that it needs nothing else for, and its results brought home."""
