"""Drawn scenes and toy models, so that everything can be shown and tested anywhere."""
