"""The command line: what people type, a module for each group of commands.

Not here: what commands do. They read the configuration, call a flow or a task, and say what came of it.
"""
