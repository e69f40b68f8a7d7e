"""Write the report and the model cards."""
