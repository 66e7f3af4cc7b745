"""Reports that leave the monitor: one HTML file, JSON or Parquet, made of aggregates alone."""
