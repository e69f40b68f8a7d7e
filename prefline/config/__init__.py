"""Read and check config.yaml; turn its sections into flags."""
