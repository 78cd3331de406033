"""Runs that are killed: what kills them, in which scenes, and what must be true of what they leave."""
