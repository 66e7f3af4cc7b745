"""MLflow's registry: versions and aliases by its own client, files through its server, webhooks as hints."""
