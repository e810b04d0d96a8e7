"""The training program, `python -m velocitune_core.train job.json`, and its parts."""
