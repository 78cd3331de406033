"""Step 5, labels of images: proposals, matched and merged. Not here: models, nor what is known of the references."""
