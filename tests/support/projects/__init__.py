"""Runs to try: small projects on disk and in a bucket, models that sleep, flows without Prefect."""
