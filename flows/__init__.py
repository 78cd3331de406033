"""The pipeline and its command line: order, fan-out, parameters."""
