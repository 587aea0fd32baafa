"""One command a question; results as JSON with the machine they were measured on."""
