"""Where model versions come from: sources that say which versions they want served."""
