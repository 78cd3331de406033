"""The pipeline and its command line: order, distribution, parameters."""
