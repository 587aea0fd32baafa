"""HTTP routes: each turns a valid request into a job or reads the truth, and answers."""
