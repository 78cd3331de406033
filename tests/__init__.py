"""Tests, in folders as the source; `system/` tries the whole, `support/` is what tests share."""
