"""Performance: predictions joined with their labels, metrics of both, estimates without labels, fairness."""
