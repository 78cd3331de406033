"""Step 5, labels of images: proposals, matched and merged. Models and references are not here."""
