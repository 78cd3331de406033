"""What was computed of an image, kept so that other references, categories or thresholds need no model."""
