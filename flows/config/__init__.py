"""A run's configuration: its keys, read from a file and flags, written as a template, checked before a run.

Not here: settings of single steps (`refseg_core/settings/`).
"""
