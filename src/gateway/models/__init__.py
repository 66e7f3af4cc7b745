"""Life of model versions: claims, loading, leases, atomic swaps, repository control, config.pbtxt."""
