"""The method, pure: no paths, no URIs, no clock, no orchestrator."""
