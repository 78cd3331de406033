"""The method's tests, folder by folder as in `refseg_core/`."""
