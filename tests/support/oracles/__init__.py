"""What numbers must equal: the original and the official evaluations, and cases to try them on."""
