"""The command `velocitune`: to the library, to the training program, and to the pipeline of a workspace."""
