"""The flows' tests, folder by folder as in `flows/`."""
