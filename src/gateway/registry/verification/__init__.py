"""Verification of fetched versions: plain files only, and signatures by a policy."""
