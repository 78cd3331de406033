"""What can be said about datasets, labels and studies as a whole. Not here: evaluation against a ground truth."""
