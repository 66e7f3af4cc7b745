"""Configuration: the schema, YAML with line numbers, and the conversion to the options that parts take."""
