"""Send requests to model servers within limits and budgets."""
