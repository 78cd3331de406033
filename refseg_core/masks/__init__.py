"""Binary masks: run lengths, packed bits and outlines. Not here: what a mask is of, and how it is drawn."""
