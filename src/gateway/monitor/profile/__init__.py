"""Reference profiles: what a model version's inputs and predictions looked like when it was good."""
