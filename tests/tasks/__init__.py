"""The tasks' tests, a file for each task, and folders as in `tasks/`."""
