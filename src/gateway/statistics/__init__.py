"""Evidence that may be looked at as often as one likes: e-processes over counts. Pure, on frozen values."""
