"""What the HTTP side and the workers agree on: jobs, their records in Redis, their image files.

Free of torch, so that the service can import it.
"""
