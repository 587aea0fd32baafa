"""Jobs in, results out: one process, one queue, one device."""
