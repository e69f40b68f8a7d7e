"""What the rules' scripts share: one noun per file."""
