"""The vocabulary every other package shares: types, errors, seams, clock. Imports nothing else of ours."""
