"""The demo's files: drawn scenes with their annotations, and the weights of toy models. There is no code here."""
