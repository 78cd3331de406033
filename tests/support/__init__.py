"""What tests share: small models, samples, commands. Not here: tests, but of what is shared."""
