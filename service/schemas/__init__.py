"""HTTP bodies: requests become jobs, results become responses. No I/O."""
