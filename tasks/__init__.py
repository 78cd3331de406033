"""The seam between the flows and the method: load, call, save."""
