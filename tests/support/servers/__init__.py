"""Servers that tests start: object stores and what breaks them, Prefect, PostgreSQL, a browser."""
