"""The protocol's methods, once, for every transport: infer, metadata, repository, statistics, health."""
