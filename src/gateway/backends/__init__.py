"""Parts that load and run model versions; each subpackage is one backend."""
