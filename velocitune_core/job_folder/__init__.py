"""A folder of jobs: runs that depend on each other, for a machine that has nothing but the training program."""
